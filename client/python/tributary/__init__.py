# SPDX-License-Identifier: Apache-2.0
"""Client of the Tributary federated-learning aggregation service.

    from tributary import Client
    Client("http://gateway:8081", "job_01jd...", "phone-7").run(train)

`Client` takes part in a job's rounds, `Admin` creates and follows jobs. Standard library only;
with numpy installed tensors are numpy arrays, without it they are `Tensor` triples.
"""
from ._admin import Admin
from ._client import Client
from ._http import JobOver, Problem, RoundClosed, Unreachable
from ._safetensors import SafetensorsError, Tensor, dump, load, to_array

__version__ = "0.1.0"
__all__ = ["Admin", "Client", "JobOver", "Problem", "RoundClosed", "SafetensorsError", "Tensor",
           "Unreachable", "dump", "load", "to_array"]
