/* SPDX-License-Identifier: Apache-2.0 */
/* Routes 64-byte descriptors between sockets of one node. Runs on every send of a socket in
 * `senders`. What it judges fit goes into the receiver's socket; everything else goes into the
 * sender's peer end, held by the agent: the dead-letter queue. UAPI headers only, -mcpu=v3.
 *
 * Kernel behaviour that shaped it, measured on 6.18 (tests/priv/transport_skmsg.c holds it down):
 *  - SK_DROP is sticky: every later send on that socket fails with EACCES and the program is not
 *    even asked. It is never returned. redirect_hash returns it for an unknown key: not passed on.
 *  - In one send of several descriptors the kernel keeps the redirection of the one before: a plain
 *    SK_PASS for the second would deliver it to the receiver of the first. So dead letters are
 *    redirected too, explicitly; a bare SK_PASS is left for a socket without storage, of which no
 *    send is ever redirected.
 *  - Corking loses bytes: after 40 bytes, a send of 24 + 64 delivers the first descriptor and frees
 *    the second silently. So a short rest is never corked: it goes to the peer end like any dead
 *    letter, which puts the stream together in user space, in order.
 *  - apply_bytes outlives the verdict: it is set for each one.
 *  - A target that closes between verdict and delivery makes that send fail with EPIPE (7 in
 *    300,000 sends over 183 deaths); it was counted as redirected. The sender's socket stays good.
 *  - A closed socket leaves its maps by itself. Redirecting works with the sender's peer end
 * closed, but its dead letters then are TCP to nobody (RST), so the agent takes it out of
 * `senders`.
 *  - Redirected and TCP bytes on one socket are read in no order between them: never mixed here.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "bpf/maps.h"

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, TRIB_MAP_ENTRIES_MAX);
	__type(key, __u32);
	__type(value, __u32);
} senders SEC(".maps"), receivers SEC(".maps"), peers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct trib_map_sender);
} sender SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, TRIB_MAP_ENTRIES_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u32);
} routes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, TRIB_MAP_ENTRIES_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct trib_map_counters);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, TRIB_MAP_ENTRIES_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct trib_map_work);
} work SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, TRIB_TOTALS);
	__type(key, __u32);
	__type(value, __u64);
} totals SEC(".maps");

/* Atomic although per CPU: a preemptible kernel may switch tasks in the middle of a program. */
static __always_inline void count_total(__u32 which)
{
	__u64 *total = bpf_map_lookup_elem(&totals, &which);

	if (total) {
		__sync_fetch_and_add(total, 1);
	}
}

static __always_inline void count_route(__u32 route, __u32 sent_us)
{
	struct trib_map_counters *c = bpf_map_lookup_elem(&counters, &route);
	__u32 now_us = (__u32)(bpf_ktime_get_ns() / 1000);

	if (c) {
		__sync_fetch_and_add(&c->messages, 1);
		__sync_fetch_and_add(&c->bytes, TRIB_DESCRIPTOR_SIZE);
		__sync_fetch_and_add(&c->queue_us, trib_route_waited_us(now_us, sent_us));
	}
}

/* A function got a letter: it works from now on, if it did not already. */
static __always_inline void work_begins(__u32 route)
{
	struct trib_map_work *w = bpf_map_lookup_elem(&work, &route);

	if (w && __sync_fetch_and_add(&w->pending, 1) == 0) {
		w->since_us = (__u32)(bpf_ktime_get_ns() / 1000);
	}
}

/* A function sent one. What it sends unasked (a successor answers for its predecessor) is no work.
 */
static __always_inline void work_answered(__u32 route)
{
	struct trib_map_work *w = bpf_map_lookup_elem(&work, &route);
	__u32 now_us = (__u32)(bpf_ktime_get_ns() / 1000);

	if (!w || w->pending == 0) {
		return;
	}
	__sync_fetch_and_add(&w->exec_us, trib_route_waited_us(now_us, w->since_us));
	w->since_us = now_us;
	__sync_fetch_and_add(&w->pending, -1);
}

static __always_inline int dead_letter(struct sk_msg_md *msg, const struct trib_map_sender *from,
				       __u32 verdict)
{
	__u32 key;

	count_total(verdict);
	if (from) {
		key = from->route;
		(void)bpf_msg_redirect_hash(msg, &peers, &key, BPF_F_INGRESS);
	}
	return SK_PASS;
}

SEC("sk_msg")
int trib_route(struct sk_msg_md *msg)
{
	struct bpf_sock *sk = msg->sk;
	const struct trib_map_sender *from = sk ? bpf_sk_storage_get(&sender, sk, 0, 0) : NULL;
	__u32 route = 0;
	__u32 sent_us = 0;
	__u32 verdict;
	int answered;

	if (msg->size < TRIB_DESCRIPTOR_SIZE) {
		bpf_msg_apply_bytes(msg, msg->size);
		return dead_letter(msg, from, TRIB_ROUTE_BAD_SIZE);
	}
	bpf_msg_apply_bytes(msg, TRIB_DESCRIPTOR_SIZE);
	if (msg->data + TRIB_DESCRIPTOR_SIZE > msg->data_end &&
	    bpf_msg_pull_data(msg, 0, TRIB_DESCRIPTOR_SIZE, 0)) {
		return dead_letter(msg, from, TRIB_ROUTE_BAD_SIZE);
	}
	verdict = trib_route_read(msg->data, msg->data_end, &route, &sent_us);
	answered = trib_route_wants_answer(msg->data, msg->data_end);
	if (verdict == TRIB_ROUTE_OK) {
		verdict = trib_route_decide(from ? &from->job : NULL,
					    bpf_map_lookup_elem(&routes, &route));
	}
	if (verdict != TRIB_ROUTE_OK) {
		return dead_letter(msg, from, verdict);
	}
	if (bpf_msg_redirect_hash(msg, &receivers, &route, BPF_F_INGRESS) != SK_PASS) {
		return dead_letter(msg, from, TRIB_ROUTE_REDIRECT_FAILED);
	}
	count_route(route, sent_us);
	work_answered(from->route);
	if (answered) {
		work_begins(route);
	}
	count_total(from->job == TRIB_ROUTE_ANY_JOB ? TRIB_TOTAL_FORWARDED : TRIB_TOTAL_REDIRECTED);
	return SK_PASS;
}

char trib_license[] SEC("license") = "Dual BSD/GPL";
