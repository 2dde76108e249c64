/* SPDX-License-Identifier: Apache-2.0
 * The event loop: the only door to libevent (core). One loop per thread; nothing here may be
 * called from another thread than the loop's, but trib_loop_wake.
 *
 * A callback must not block, must bound its work, and may free any object, itself included.
 */
#ifndef TRIB_COMMON_LOOP_H
#define TRIB_COMMON_LOOP_H

#include "common/base.h"

struct event_base;
struct trib_loop;
struct trib_io;
struct trib_timer;

enum {
	TRIB_IO_NONE = 0,
	TRIB_IO_READ = 1,
	TRIB_IO_WRITE = 2
};

typedef void trib_io_cb(int fd, unsigned ready, void *arg);
typedef void trib_loop_cb(void *arg);

TRIB_MUST_CHECK int trib_loop_new(struct trib_loop **ret_loop);
void trib_loop_free(struct trib_loop *loop); /* all io, timers and signals freed before */
TRIB_MUST_CHECK int trib_loop_run(struct trib_loop *loop); /* until trib_loop_stop; 0 or -errno */
void trib_loop_stop(struct trib_loop *loop);
/* The one call allowed from another thread: runs `cb` on the loop soon (queue bound 1024:
 * -ENOBUFS). */
TRIB_MUST_CHECK int trib_loop_wake(struct trib_loop *loop, trib_loop_cb *cb, void *arg);
struct event_base *trib_loop_base(struct trib_loop *loop); /* for common/redis.c only */

/* Level-triggered, persistent. `fd` is borrowed. */
TRIB_MUST_CHECK int trib_io_new(struct trib_loop *loop, int fd, unsigned interest, trib_io_cb *cb,
				void *arg, struct trib_io **ret_io);
TRIB_MUST_CHECK int trib_io_set(struct trib_io *io, unsigned interest);
struct trib_io *trib_io_free(struct trib_io *io); /* NULL allowed; returns NULL */

/* Not armed when made. */
TRIB_MUST_CHECK int trib_timer_new(struct trib_loop *loop, trib_loop_cb *cb, void *arg,
				   struct trib_timer **ret_timer);
void trib_timer_after(struct trib_timer *timer, uint64_t delay_ms); /* one shot; re-arms */
/* Periods of a second or more: as by trib_timer_about. */
void trib_timer_every(struct trib_timer *timer, uint64_t period_ms);
/* One shot, at the next multiple of delay_ms (on this machine's clock) that is at least half of it
 * away: timers of one period are woken together, in all processes, and their calls go out together.
 */
void trib_timer_about(struct trib_timer *timer, uint64_t delay_ms);
void trib_timer_stop(struct trib_timer *timer);
struct trib_timer *trib_timer_free(struct trib_timer *timer);

typedef void trib_signal_cb(int signal_number, void *arg);
/* Lives as long as the loop. */
TRIB_MUST_CHECK int trib_loop_on_signal(struct trib_loop *loop, int signal_number,
					trib_signal_cb *cb, void *arg);

#endif
