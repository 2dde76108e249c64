/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096u

static size_t stride(void)
{
	return PAGE + trib_round_up(trib_ring_size(TRIB_CHANNEL_ENTRIES), PAGE);
}

static int lay_out(struct trib_channels *channels, bool make)
{
	for (uint32_t i = 0; i < channels->count; i++) {
		uint8_t *at = channels->memory + i * stride();
		struct trib_channel *channel = &channels->channel[i];
		int rc;

		channel->asleep = (uint32_t *)(void *)at;
		channel->doorbell = -1;
		rc = make ? trib_ring_init(at + PAGE, TRIB_CHANNEL_ENTRIES, &channel->ring)
			  : trib_ring_attach(at + PAGE, TRIB_CHANNEL_ENTRIES, &channel->ring);
		if (rc) {
			return rc;
		}
		if (make) {
			__atomic_store_n(channel->asleep, 1, __ATOMIC_RELEASE);
		}
	}
	return 0;
}

static int map_all(int fd, uint32_t count, bool make, struct trib_channels *ret_channels)
{
	struct trib_channels channels = { .fd = fd, .count = count, .size = stride() * count };
	void *memory = mmap(NULL, channels.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	int rc;

	if (memory == MAP_FAILED) {
		rc = -errno;
		(void)close(fd);
		return rc;
	}
	channels.memory = memory;
	rc = lay_out(&channels, make);
	if (rc) {
		trib_channels_fini(&channels);
		return rc;
	}
	*ret_channels = channels;
	return 0;
}

int trib_channels_create(uint32_t count, struct trib_channels *ret_channels)
{
	int fd;

	if (count == 0 || count > TRIB_CHANNELS_MAX) {
		return -EINVAL;
	}
	fd = memfd_create("tributary-rings", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0) {
		return -errno;
	}
	if (fchmod(fd, 0600) < 0 || ftruncate(fd, (off_t)(stride() * count)) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		int rc = -errno;

		(void)close(fd);
		return rc;
	}
	return map_all(fd, count, true, ret_channels);
}

int trib_channels_attach(int fd, uint32_t count, struct trib_channels *ret_channels)
{
	struct stat st;

	if (count == 0 || count > TRIB_CHANNELS_MAX || fstat(fd, &st) < 0 ||
	    (uint64_t)st.st_size != stride() * count || !(fcntl(fd, F_GET_SEALS) & F_SEAL_SHRINK)) {
		(void)close(fd);
		return -EBADMSG;
	}
	return map_all(fd, count, false, ret_channels);
}

void trib_channels_fini(struct trib_channels *channels)
{
	if (channels->memory) {
		(void)munmap(channels->memory, channels->size);
		channels->memory = NULL;
	}
	if (channels->fd >= 0) {
		(void)close(channels->fd);
		channels->fd = -1;
	}
	channels->count = 0;
}

/* Between "what I wrote" and "is the other asleep". The thread sanitizer knows no fences, but what
 * a read-modify-write orders. */
static void full_fence(void)
{
#ifdef __SANITIZE_THREAD__
	static int word;

	(void)__atomic_fetch_add(&word, 1, __ATOMIC_SEQ_CST);
#else
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

int trib_channel_push(struct trib_channel *channel, const struct trib_descriptor *descriptor)
{
	uint64_t one = 1;
	int rc = trib_ring_push(channel->ring, descriptor);

	/* Ring even when full: the consumer must wake either way. */
	full_fence();
	if (__atomic_exchange_n(channel->asleep, 0, __ATOMIC_ACQ_REL) == 1 &&
	    write(channel->doorbell, &one, sizeof(one)) < 0 && errno != EAGAIN) {
		return -errno;
	}
	return rc;
}

uint32_t trib_channel_pop(struct trib_channel *channel, struct trib_descriptor *descriptors,
			  uint32_t max)
{
	uint32_t n = trib_ring_pop(channel->ring, descriptors, max);

	if (n) {
		return n;
	}
	__atomic_store_n(channel->asleep, 1, __ATOMIC_RELEASE);
	full_fence();
	if (trib_ring_empty(channel->ring)) {
		return 0;
	}
	/* Something came between: stay awake (a spurious doorbell does no harm). */
	__atomic_store_n(channel->asleep, 0, __ATOMIC_RELEASE);
	return trib_ring_pop(channel->ring, descriptors, max);
}
