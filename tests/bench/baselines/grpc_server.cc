// SPDX-License-Identifier: Apache-2.0
// Baseline: a gRPC streaming server in C++ as one would write it for this. Synchronous API, a thread
// per stream, every 1 MiB piece is folded as it is read (-O3 -march=native), one accumulator whose
// regions have a lock each, no update is ever held whole.
//
//   grpc_server ELEMENTS UPDATES     prints {"port":..}, then {"published_ns":..,"received_ns":..} per UPDATES:
//                                when the last piece was read
#include <grpcpp/grpcpp.h>
#include <time.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "aggregate.grpc.pb.h"

namespace {

constexpr size_t kRegion = 1 << 18; // elements per lock: 1 MiB of floats

unsigned long long now_ns()
{
	timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return static_cast<unsigned long long>(t.tv_sec) * 1000000000ull + static_cast<unsigned long long>(t.tv_nsec);
}

void fold(float *__restrict sums, const float *__restrict in, size_t n, float weight)
{
	for (size_t i = 0; i < n; i++) {
		sums[i] += weight * in[i];
	}
}

class Service final : public bench::Aggregate::Service {
public:
	Service(size_t elements, unsigned updates)
	    : elements_(elements), updates_(updates), sums_(elements), base_(elements), model_(elements),
	      locks_(elements / kRegion + 1)
	{
	}

	grpc::Status Upload(grpc::ServerContext *, grpc::ServerReader<bench::Piece> *reader,
			    bench::Receipt *receipt) override
	{
		bench::Piece piece; // reused: its buffer is allocated once
		size_t at = 0;

		while (reader->Read(&piece)) {
			const std::string &data = piece.data();
			size_t n = data.size() / sizeof(float);

			if (data.size() % sizeof(float) || n > elements_ - at) {
				return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "size");
			}
			if (at + n == elements_) {
				received_ = now_ns();
			}
			add(at, reinterpret_cast<const float *>(data.data()), n);
			at += n;
		}
		if (at != elements_) {
			return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "short");
		}
		receipt->set_values(at);
		if (folded_.fetch_add(1) + 1 == updates_) {
			publish();
		}
		return grpc::Status::OK;
	}

private:
	void add(size_t at, const float *in, size_t n)
	{
		while (n) {
			size_t region = at / kRegion;
			size_t count = std::min(n, (region + 1) * kRegion - at);
			std::lock_guard<std::mutex> guard(locks_[region]);

			fold(&sums_[at], in, count, 1.0f);
			at += count;
			in += count;
			n -= count;
		}
	}

	void publish()
	{
		float unit = 1.0f / static_cast<float>(updates_);

		for (size_t i = 0; i < elements_; i++) {
			model_[i] = base_[i] + unit * sums_[i];
		}
		std::printf("{\"published_ns\":%llu,\"received_ns\":%llu}\n", now_ns(), received_.load());
		std::fflush(stdout);
		std::memset(sums_.data(), 0, elements_ * sizeof(float));
		folded_ = 0;
	}

	const size_t elements_;
	const unsigned updates_;
	std::vector<float> sums_;
	std::vector<float> base_;
	std::vector<float> model_;
	std::vector<std::mutex> locks_;
	std::atomic<unsigned> folded_{0};
	std::atomic<unsigned long long> received_{0};
};

} // namespace

int main(int argc, char **argv)
{
	int port = 0;

	if (argc != 3) {
		std::fprintf(stderr, "grpc_server ELEMENTS UPDATES\n");
		return 2;
	}
	Service service(std::strtoul(argv[1], nullptr, 10), static_cast<unsigned>(std::strtoul(argv[2], nullptr, 10)));
	grpc::ServerBuilder builder;
	builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
	builder.SetMaxReceiveMessageSize(8 << 20);
	builder.RegisterService(&service);
	std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
	if (!server) {
		return 1;
	}
	std::printf("{\"port\":%d}\n", port);
	std::fflush(stdout);
	while (std::getchar() != EOF) {
	}
	_Exit(0); // the bench has gone
}
