/* SPDX-License-Identifier: Apache-2.0
 * The side-car of a function behind a broker: takes what comes into a Redis list, one by one, and
 * sends it to the function over TCP.
 *
 *   proxy REDIS_HOST:PORT QUEUE SKIP FUNCTION_HOST:PORT
 */
#include <signal.h>
#include <sys/prctl.h>

#include "tests/bench/lifl/net.h"

static void answer(int fd, const char *wanted, char *line, size_t size)
{
	net_line(fd, line, size);
	if (strncmp(line, wanted, strlen(wanted)) != 0) {
		(void)fprintf(stderr, "proxy: '%s', wanted '%s'\n", line, wanted);
		exit(1);
	}
}

int main(int argc, char **argv)
{
	char line[256];
	char ask[256];
	struct frame head = { 0 };
	char *body = NULL;
	size_t room = 0;
	int broker;
	int function;
	int size;

	if (argc < 5) {
		(void)fprintf(stderr, "proxy REDIS QUEUE SKIP FUNCTION\n");
		return 2;
	}
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	broker = net_dial(argv[1]);
	function = net_dial(argv[4]);
	head.skip = (uint32_t)strtoul(argv[3], NULL, 10);
	size = snprintf(ask, sizeof(ask), "*3\r\n$5\r\nBLPOP\r\n$%zu\r\n%s\r\n$1\r\n0\r\n",
			strlen(argv[2]), argv[2]);
	for (;;) {
		net_send(broker, ask, (size_t)size);
		answer(broker, "*2", line, sizeof(line));
		answer(broker, "$", line, sizeof(line));
		net_line(broker, line, sizeof(line));
		answer(broker, "$", line, sizeof(line));
		head.bytes = strtoull(line + 1, NULL, 10);
		if (head.bytes + 2 > room) {
			room = head.bytes + 2;
			free(body);
			body = malloc(room);
			if (!body) {
				net_die("malloc");
			}
		}
		net_receive(broker, body, head.bytes + 2);
		net_send(function, &head, sizeof(head));
		net_send(function, body, head.bytes);
		answer(function, "+OK", line, sizeof(line));
	}
}
