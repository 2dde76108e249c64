/* SPDX-License-Identifier: Apache-2.0
 * tributary-aggregator --zygote-fd N: started by the agent only, never by hand.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "aggregator/zygote.h"
#include "common/log.h"
#include "common/options.h"

#define FD_MIN 3
#define FD_MAX 1023

int main(int argc, char **argv)
{
	uint64_t fd = 0;
	const struct trib_option table[] = {
		{ "zygote-fd", TRIB_OPTION_NUMBER, &fd, FD_MIN, FD_MAX, "N",
		  "SEQPACKET socket of the agent" },
		{ 0 },
	};
	int first;
	int rc;

	trib_log_init("aggregator", TRIB_LOG_INFO);
	rc = trib_options_parse(argc, argv, "--zygote-fd N (the agent starts this program)", table,
				&first);
	if (rc) {
		return rc > 0 ? 0 : 2;
	}
	if (first != argc || fd < FD_MIN || fcntl((int)fd, F_GETFD) < 0) {
		(void)fprintf(stderr, "tributary-aggregator: --zygote-fd must be an open socket\n");
		return 2;
	}
	(void)fcntl((int)fd, F_SETFD, FD_CLOEXEC);
	return agg_zygote_run((int)fd);
}
