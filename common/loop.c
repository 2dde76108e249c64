/* SPDX-License-Identifier: Apache-2.0 */
#include "common/loop.h"

#include <errno.h>
#include <event2/event.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/clock.h"

#define WAKES_MAX    1024
#define SIGNALS_MAX  8
#define ABOUT_MIN_MS 1000 /* the period of trib_timer_every from which it is one of _about */

struct trib_wake {
	trib_loop_cb *cb;
	void *arg;
};

struct trib_loop_signal {
	struct event *event;
	trib_signal_cb *cb;
	void *arg;
};

struct trib_loop {
	struct event_base *base;
	int wake_fd;
	struct trib_io *wake_io;
	pthread_mutex_t lock; /* guards wakes: threads of one process, never shared memory */
	struct trib_wake wakes[WAKES_MAX];
	size_t wake_count;
	struct trib_loop_signal signals[SIGNALS_MAX];
	size_t signal_count;
};

struct trib_io {
	struct event *event;
	struct trib_loop *loop;
	int fd;
	unsigned interest;
	trib_io_cb *cb;
	void *arg;
};

struct trib_timer {
	struct event *event;
	struct trib_loop *loop;
	trib_loop_cb *cb;
	void *arg;
	bool periodic;
	uint64_t about_ms; /* 0, or its period when that is one of trib_timer_about */
};

static void on_wake(int fd, unsigned ready, void *arg)
{
	struct trib_loop *loop = arg;
	struct trib_wake todo[64];
	uint64_t count;
	size_t n;

	(void)ready;
	if (read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN) {
		return;
	}
	do {
		(void)pthread_mutex_lock(&loop->lock);
		n = loop->wake_count < TRIB_COUNT(todo) ? loop->wake_count : TRIB_COUNT(todo);
		for (size_t i = 0; i < n; i++) {
			todo[i] = loop->wakes[i];
		}
		loop->wake_count -= n;
		for (size_t i = 0; i < loop->wake_count; i++) {
			loop->wakes[i] = loop->wakes[i + n];
		}
		(void)pthread_mutex_unlock(&loop->lock);
		for (size_t i = 0; i < n; i++) {
			todo[i].cb(todo[i].arg);
		}
	} while (n == TRIB_COUNT(todo));
}

int trib_loop_new(struct trib_loop **ret_loop)
{
	struct trib_loop *loop = trib_alloc(sizeof(*loop));
	struct event_config *config = NULL;
	int rc = -ENOMEM;

	if (!loop) {
		return -ENOMEM;
	}
	loop->wake_fd = -1;
	(void)pthread_mutex_init(&loop->lock, NULL);
	config = event_config_new();
	if (!config) {
		goto fail;
	}
	(void)event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
	loop->base = event_base_new_with_config(config);
	event_config_free(config);
	if (!loop->base) {
		goto fail;
	}
	loop->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (loop->wake_fd < 0) {
		rc = -errno;
		goto fail;
	}
	rc = trib_io_new(loop, loop->wake_fd, TRIB_IO_READ, on_wake, loop, &loop->wake_io);
	if (rc) {
		goto fail;
	}
	*ret_loop = loop;
	return 0;
fail:
	trib_loop_free(loop);
	return rc;
}

void trib_loop_free(struct trib_loop *loop)
{
	if (!loop) {
		return;
	}
	for (size_t i = 0; i < loop->signal_count; i++) {
		event_free(loop->signals[i].event);
	}
	loop->wake_io = trib_io_free(loop->wake_io);
	if (loop->wake_fd >= 0) {
		(void)close(loop->wake_fd);
	}
	if (loop->base) {
		event_base_free(loop->base);
	}
	(void)pthread_mutex_destroy(&loop->lock);
	trib_free(loop);
}

int trib_loop_run(struct trib_loop *loop)
{
	return event_base_dispatch(loop->base) < 0 ? -EIO : 0;
}

void trib_loop_stop(struct trib_loop *loop)
{
	(void)event_base_loopbreak(loop->base);
}

int trib_loop_wake(struct trib_loop *loop, trib_loop_cb *cb, void *arg)
{
	uint64_t one = 1;
	int rc = 0;

	(void)pthread_mutex_lock(&loop->lock);
	if (loop->wake_count == WAKES_MAX) {
		rc = -ENOBUFS;
	} else {
		loop->wakes[loop->wake_count++] = (struct trib_wake){ cb, arg };
	}
	(void)pthread_mutex_unlock(&loop->lock);
	if (write(loop->wake_fd, &one, sizeof(one)) < 0 && errno != EAGAIN) {
		return -errno;
	}
	return rc;
}

struct event_base *trib_loop_base(struct trib_loop *loop)
{
	return loop->base;
}

static void on_io(evutil_socket_t fd, short what, void *arg)
{
	struct trib_io *io = arg;
	unsigned ready = 0;

	if (what & EV_READ) {
		ready |= TRIB_IO_READ;
	}
	if (what & EV_WRITE) {
		ready |= TRIB_IO_WRITE;
	}
	io->cb(fd, ready & io->interest, io->arg);
}

int trib_io_new(struct trib_loop *loop, int fd, unsigned interest, trib_io_cb *cb, void *arg,
		struct trib_io **ret_io)
{
	struct trib_io *io = trib_alloc(sizeof(*io));
	int rc;

	if (!io) {
		return -ENOMEM;
	}
	io->loop = loop;
	io->fd = fd;
	io->cb = cb;
	io->arg = arg;
	io->event = event_new(loop->base, fd, EV_READ | EV_PERSIST, on_io, io);
	if (!io->event) {
		trib_free(io);
		return -ENOMEM;
	}
	rc = trib_io_set(io, interest);
	if (rc) {
		(void)trib_io_free(io);
		return rc;
	}
	*ret_io = io;
	return 0;
}

int trib_io_set(struct trib_io *io, unsigned interest)
{
	short what = EV_PERSIST;

	if (interest == io->interest) {
		return 0;
	}
	if (io->interest) {
		(void)event_del(io->event);
	}
	io->interest = interest;
	if (!interest) {
		return 0;
	}
	what |= (interest & TRIB_IO_READ) ? EV_READ : 0;
	what |= (interest & TRIB_IO_WRITE) ? EV_WRITE : 0;
	if (event_assign(io->event, io->loop->base, io->fd, what, on_io, io) ||
	    event_add(io->event, NULL)) {
		io->interest = 0;
		return -EIO;
	}
	return 0;
}

struct trib_io *trib_io_free(struct trib_io *io)
{
	if (io) {
		event_free(io->event);
		trib_free(io);
	}
	return NULL;
}

static void on_timer(evutil_socket_t fd, short what, void *arg);

static void timer_arm(struct trib_timer *timer, uint64_t ms, bool periodic)
{
	struct timeval tv = { .tv_sec = (time_t)(ms / 1000),
			      .tv_usec = (suseconds_t)(ms % 1000) * 1000 };

	(void)event_del(timer->event);
	if (timer->periodic != periodic) {
		(void)event_assign(timer->event, timer->loop->base, -1, periodic ? EV_PERSIST : 0,
				   on_timer, timer);
		timer->periodic = periodic;
	}
	(void)event_add(timer->event, &tv);
}

static void arm_about(struct trib_timer *timer, uint64_t ms)
{
	uint64_t now = trib_clock_ms();

	timer_arm(timer, (now + ms + ms / 2) / ms * ms - now, false);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct trib_timer *timer = arg;

	(void)fd;
	(void)what;
	if (timer->about_ms) {
		arm_about(timer, timer->about_ms);
	}
	timer->cb(timer->arg);
}

int trib_timer_new(struct trib_loop *loop, trib_loop_cb *cb, void *arg,
		   struct trib_timer **ret_timer)
{
	struct trib_timer *timer = trib_alloc(sizeof(*timer));

	if (!timer) {
		return -ENOMEM;
	}
	timer->loop = loop;
	timer->cb = cb;
	timer->arg = arg;
	timer->event = event_new(loop->base, -1, 0, on_timer, timer);
	if (!timer->event) {
		trib_free(timer);
		return -ENOMEM;
	}
	*ret_timer = timer;
	return 0;
}

void trib_timer_after(struct trib_timer *timer, uint64_t delay_ms)
{
	timer->about_ms = 0;
	timer_arm(timer, delay_ms, false);
}

void trib_timer_every(struct trib_timer *timer, uint64_t period_ms)
{
	timer->about_ms = period_ms >= ABOUT_MIN_MS ? period_ms : 0;
	if (timer->about_ms) {
		arm_about(timer, period_ms);
	} else {
		timer_arm(timer, period_ms, true);
	}
}

void trib_timer_about(struct trib_timer *timer, uint64_t delay_ms)
{
	timer->about_ms = 0;
	arm_about(timer, delay_ms ? delay_ms : 1);
}

void trib_timer_stop(struct trib_timer *timer)
{
	(void)event_del(timer->event);
}

struct trib_timer *trib_timer_free(struct trib_timer *timer)
{
	if (timer) {
		event_free(timer->event);
		trib_free(timer);
	}
	return NULL;
}

static void on_signal(evutil_socket_t number, short what, void *arg)
{
	struct trib_loop_signal *signal_event = arg;

	(void)what;
	signal_event->cb(number, signal_event->arg);
}

int trib_loop_on_signal(struct trib_loop *loop, int signal_number, trib_signal_cb *cb, void *arg)
{
	struct trib_loop_signal *slot;

	if (loop->signal_count == SIGNALS_MAX) {
		return -ENOBUFS;
	}
	slot = &loop->signals[loop->signal_count];
	slot->cb = cb;
	slot->arg = arg;
	slot->event = evsignal_new(loop->base, signal_number, on_signal, slot);
	if (!slot->event || event_add(slot->event, NULL)) {
		if (slot->event) {
			event_free(slot->event);
		}
		return -ENOMEM;
	}
	loop->signal_count++;
	return 0;
}
