/* SPDX-License-Identifier: Apache-2.0 */
#include "bpf/loader.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/capability.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/log.h"
#include "route.skel.h"

struct trib_router {
	struct route_bpf *object;
	int senders;
	int receivers;
	int peers;
	int sender;
	int routes;
	int counters;
	int work;
	int totals;
	uint32_t cpus; /* possible ones: length of every per-CPU value */
	void *values;  /* scratch: one per-CPU value of the larger kind */
};

/* libbpf has one print function per process and gives it no argument. The first complaint is kept
 * for the explanation: the later ones are consequences. */
static char complaint[160];

static int TRIB_PRINTF(2, 0)
	on_print(enum libbpf_print_level level, const char *format, va_list args)
{
	char line[512];

	(void)vsnprintf(line, sizeof(line), format, args);
	line[strcspn(line, "\n")] = '\0';
	if (level == LIBBPF_WARN && !complaint[0]) {
		(void)snprintf(complaint, sizeof(complaint), "%.*s", (int)sizeof(complaint) - 1,
			       strncmp(line, "libbpf: ", 8) ? line : line + 8);
	}
	log_debug("bpf", "libbpf level=%d text=\"%s\"", (int)level, line);
	return 0;
}

static uint64_t effective_capabilities(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = { 0 };

	if (syscall(SYS_capget, &header, data)) {
		return 0;
	}
	return ((uint64_t)data[1].effective << 32) | data[0].effective;
}

static const char *missing_capabilities(void)
{
	uint64_t have = effective_capabilities();
	bool admin = have >> CAP_SYS_ADMIN & 1;
	bool bpf = admin || (have >> CAP_BPF & 1);
	bool net = admin || (have >> CAP_NET_ADMIN & 1);

	if (bpf) {
		return net ? NULL : "CAP_NET_ADMIN";
	}
	return net ? "CAP_BPF" : "CAP_BPF and CAP_NET_ADMIN";
}

/* Asked only after a failure, so that a wrong guess never keeps a working kernel from working. */
static void explain(int rc, const char *step, char why[TRIB_ROUTER_WHY_SIZE])
{
	const char *missing = missing_capabilities();
	char first[sizeof(complaint)];

	memcpy(first, complaint, sizeof(first)); /* probing overwrites it */
	if (missing) {
		(void)snprintf(why, TRIB_ROUTER_WHY_SIZE, "%s missing", missing);
	} else if (rc == -ENOSYS) {
		(void)snprintf(why, TRIB_ROUTER_WHY_SIZE, "the kernel has no bpf() call");
	} else if (rc == -ENOMEM) {
		(void)snprintf(why, TRIB_ROUTER_WHY_SIZE, "out of memory: %s", step);
	} else if (libbpf_probe_bpf_map_type(BPF_MAP_TYPE_SOCKHASH, NULL) == 0) {
		(void)snprintf(why, TRIB_ROUTER_WHY_SIZE,
			       "no sockhash maps: kernel too old, without CONFIG_NET_SOCK_MSG, or "
			       "bpf() refused by seccomp, lockdown or a user namespace");
	} else if (libbpf_probe_bpf_map_type(BPF_MAP_TYPE_SK_STORAGE, NULL) == 0) {
		(void)snprintf(why, TRIB_ROUTER_WHY_SIZE, "the kernel has no socket storage maps");
	} else if (libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_SK_MSG, NULL) == 0) {
		(void)snprintf(why, TRIB_ROUTER_WHY_SIZE, "the kernel has no SK_MSG programs");
	} else {
		(void)snprintf(why, TRIB_ROUTER_WHY_SIZE, "%s refused: %s (%s)", step,
			       strerror(-rc), first[0] ? first : "no further word");
	}
}

static int load(struct trib_router *router, const char **ret_step)
{
	int rc;

	*ret_step = "opening the object";
	router->object = route_bpf__open();
	if (!router->object) {
		return errno ? -errno : -EINVAL;
	}
	*ret_step = "the program";
	rc = route_bpf__load(router->object);
	if (rc) {
		return rc;
	}
	router->senders = bpf_map__fd(router->object->maps.senders);
	router->receivers = bpf_map__fd(router->object->maps.receivers);
	router->peers = bpf_map__fd(router->object->maps.peers);
	router->sender = bpf_map__fd(router->object->maps.sender);
	router->routes = bpf_map__fd(router->object->maps.routes);
	router->counters = bpf_map__fd(router->object->maps.counters);
	router->work = bpf_map__fd(router->object->maps.work);
	router->totals = bpf_map__fd(router->object->maps.totals);
	*ret_step = "attaching the program";
	return bpf_prog_attach(bpf_program__fd(router->object->progs.trib_route), router->senders,
			       BPF_SK_MSG_VERDICT, 0);
}

int trib_router_new(char ret_why[TRIB_ROUTER_WHY_SIZE], struct trib_router **ret_router)
{
	struct trib_router *router = trib_alloc(sizeof(*router));
	const char *step = "allocating";
	int cpus;
	int rc = -ENOMEM;

	complaint[0] = '\0';
	(void)libbpf_set_print(on_print);
	if (!router) {
		goto fail;
	}
	cpus = libbpf_num_possible_cpus();
	if (cpus <= 0) {
		rc = cpus ? cpus : -EINVAL;
		step = "counting CPUs";
		goto fail;
	}
	router->cpus = (uint32_t)cpus;
	router->values = trib_alloc_array(router->cpus, sizeof(struct trib_map_counters));
	if (!router->values) {
		goto fail;
	}
	rc = load(router, &step);
	if (rc) {
		goto fail;
	}
	*ret_router = router;
	return 0;
fail:
	explain(rc, step, ret_why);
	(void)trib_router_free(router);
	return rc;
}

struct trib_router *trib_router_free(struct trib_router *router)
{
	if (!router) {
		return NULL;
	}
	if (router->object) {
		route_bpf__destroy(router->object);
	}
	trib_free(router->values);
	trib_free(router);
	return NULL;
}

/* Storage before `senders`, `routes` last: a socket that can send has a job, a route that can be
 * found has a socket and counters. */
int trib_router_open(struct trib_router *router, uint32_t route, uint32_t job, int owner_fd,
		     int peer_fd)
{
	const struct trib_map_sender sender = { .job = job, .route = route };
	const struct trib_map_work idle = { 0 };
	uint32_t known;
	int rc;

	if (bpf_map_lookup_elem(router->routes, &route, &known) == 0) {
		return -EEXIST;
	}
	memset(router->values, 0, router->cpus * sizeof(struct trib_map_counters));
	rc = bpf_map_update_elem(router->counters, &route, router->values, BPF_ANY);
	if (!rc && route % TRIB_ROUTES_PER_JOB != 0 && route != TRIB_ROUTE_SELF) { /* no hub's */
		rc = bpf_map_update_elem(router->work, &route, &idle, BPF_ANY);
	}
	if (!rc) {
		rc = bpf_map_update_elem(router->sender, &owner_fd, &sender, BPF_ANY);
	}
	if (!rc) {
		rc = bpf_map_update_elem(router->peers, &route, &peer_fd, BPF_NOEXIST);
	}
	if (!rc) {
		rc = bpf_map_update_elem(router->senders, &route, &owner_fd, BPF_NOEXIST);
	}
	if (!rc) {
		rc = bpf_map_update_elem(router->receivers, &route, &owner_fd, BPF_NOEXIST);
	}
	if (!rc) {
		rc = bpf_map_update_elem(router->routes, &route, &job, BPF_NOEXIST);
	}
	if (rc) {
		trib_router_close(router, route);
		return rc == -E2BIG ? -ENOSPC : rc;
	}
	return 0;
}

/* What is not there (any more) is fine. */
void trib_router_shut(struct trib_router *router, uint32_t route)
{
	(void)bpf_map_delete_elem(router->routes, &route);
	(void)bpf_map_delete_elem(router->receivers, &route);
	(void)bpf_map_delete_elem(router->senders, &route);
	(void)bpf_map_delete_elem(router->peers, &route);
}

void trib_router_close(struct trib_router *router, uint32_t route)
{
	trib_router_shut(router, route);
	(void)bpf_map_delete_elem(router->counters, &route);
	(void)bpf_map_delete_elem(router->work, &route);
}

uint64_t trib_router_exec_us(const struct trib_router *router, uint32_t route)
{
	struct trib_map_work w = { 0 };

	return bpf_map_lookup_elem(router->work, &route, &w) ? 0 : w.exec_us;
}

int trib_router_counters(const struct trib_router *router, uint32_t route,
			 struct trib_map_counters *ret_counters)
{
	const struct trib_map_counters *each = router->values;
	struct trib_map_counters sum = { 0 };
	int rc = bpf_map_lookup_elem(router->counters, &route, router->values);

	if (rc) {
		return rc;
	}
	for (uint32_t i = 0; i < router->cpus; i++) {
		sum.messages += each[i].messages;
		sum.bytes += each[i].bytes;
		sum.queue_us += each[i].queue_us;
	}
	*ret_counters = sum;
	return 0;
}

int trib_router_totals(const struct trib_router *router, uint64_t ret_totals[TRIB_TOTALS])
{
	const uint64_t *each = router->values;

	for (uint32_t key = 0; key < TRIB_TOTALS; key++) {
		int rc = bpf_map_lookup_elem(router->totals, &key, router->values);

		if (rc) {
			return rc;
		}
		ret_totals[key] = 0;
		for (uint32_t i = 0; i < router->cpus; i++) {
			ret_totals[key] += each[i];
		}
	}
	return 0;
}

int trib_router_totals_reset(struct trib_router *router)
{
	memset(router->values, 0, router->cpus * sizeof(struct trib_map_counters));
	for (uint32_t key = 0; key < TRIB_TOTALS; key++) {
		int rc = bpf_map_update_elem(router->totals, &key, router->values, BPF_ANY);

		if (rc) {
			return rc;
		}
	}
	return 0;
}
