/* SPDX-License-Identifier: Apache-2.0 */
#include "client/load/shapes.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define HEADER_MAX (1u << 20)
#define DIMS_MAX   4

const char load_shape_names[] = "tiny, lenet5, resnet18, resnet34, resnet152, lora-7b";

struct writer {
	char *json;
	size_t used;
	uint64_t at; /* bytes of data so far */
	uint32_t tensors;
	bool full;
};

static void put(struct writer *w, const char *format, ...) TRIB_PRINTF(2, 3);
static void put(struct writer *w, const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(w->json + w->used, HEADER_MAX - w->used, format, args);
	va_end(args);
	if (n < 0 || (size_t)n >= HEADER_MAX - w->used) {
		w->full = true;
		return;
	}
	w->used += (size_t)n;
}

/* `dims` of shape; names and shapes are ours, so nothing needs escaping. */
static void tensor(struct writer *w, const char *name, int dims, const uint64_t *shape)
{
	uint64_t bytes = 4;

	put(w, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[", w->tensors ? "," : "", name);
	for (int i = 0; i < dims; i++) {
		put(w, "%s%llu", i ? "," : "", (unsigned long long)shape[i]);
		bytes *= shape[i];
	}
	put(w, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)w->at,
	    (unsigned long long)(w->at + bytes));
	w->at += bytes;
	w->tensors++;
}

static void vector(struct writer *w, const char *prefix, const char *leaf, uint64_t size)
{
	char name[96];

	(void)snprintf(name, sizeof(name), "%s.%s", prefix, leaf);
	tensor(w, name, 1, &size);
}

static void matrix(struct writer *w, const char *prefix, const char *leaf, uint64_t rows,
		   uint64_t columns)
{
	const uint64_t shape[] = { rows, columns };
	char name[96];

	(void)snprintf(name, sizeof(name), "%s.%s", prefix, leaf);
	tensor(w, name, 2, shape);
}

static void linear(struct writer *w, const char *prefix, uint64_t in, uint64_t out)
{
	matrix(w, prefix, "weight", out, in);
	vector(w, prefix, "bias", out);
}

static void conv(struct writer *w, const char *prefix, uint64_t in, uint64_t out, uint64_t side)
{
	const uint64_t shape[DIMS_MAX] = { out, in, side, side };
	char name[96];

	(void)snprintf(name, sizeof(name), "%s.weight", prefix);
	tensor(w, name, DIMS_MAX, shape);
}

static void norm(struct writer *w, const char *prefix, uint64_t size)
{
	vector(w, prefix, "weight", size);
	vector(w, prefix, "bias", size);
	vector(w, prefix, "running_mean", size);
	vector(w, prefix, "running_var", size);
}

/* conv + batch norm number n of a block. */
static void unit(struct writer *w, const char *block, int n, const uint64_t in_out_side[3])
{
	char name[80];

	(void)snprintf(name, sizeof(name), "%s.conv%d", block, n);
	conv(w, name, in_out_side[0], in_out_side[1], in_out_side[2]);
	(void)snprintf(name, sizeof(name), "%s.bn%d", block, n);
	norm(w, name, in_out_side[1]);
}

static void block(struct writer *w, const char *name, uint64_t in, uint64_t planes, bool bottleneck)
{
	uint64_t out = bottleneck ? planes * 4 : planes;
	char down[80];

	if (bottleneck) {
		unit(w, name, 1, (const uint64_t[]){ in, planes, 1 });
		unit(w, name, 2, (const uint64_t[]){ planes, planes, 3 });
		unit(w, name, 3, (const uint64_t[]){ planes, out, 1 });
	} else {
		unit(w, name, 1, (const uint64_t[]){ in, planes, 3 });
		unit(w, name, 2, (const uint64_t[]){ planes, planes, 3 });
	}
	if (in != out) { /* the first block of a stage */
		(void)snprintf(down, sizeof(down), "%s.downsample.0", name);
		conv(w, down, in, out, 1);
		(void)snprintf(down, sizeof(down), "%s.downsample.1", name);
		norm(w, down, out);
	}
}

static void resnet(struct writer *w, const unsigned depths[4], bool bottleneck)
{
	uint64_t in = 64;
	char name[64];

	conv(w, "conv1", 3, 64, 7);
	norm(w, "bn1", 64);
	for (unsigned stage = 0; stage < 4; stage++) {
		uint64_t planes = 64ull << stage;

		for (unsigned i = 0; i < depths[stage]; i++) {
			(void)snprintf(name, sizeof(name), "layer%u.%u", stage + 1, i);
			block(w, name, in, planes, bottleneck);
			in = bottleneck ? planes * 4 : planes;
		}
	}
	linear(w, "fc", in, 1000);
}

static void resnet18(struct writer *w)
{
	resnet(w, (const unsigned[]){ 2, 2, 2, 2 }, false);
}

static void resnet34(struct writer *w)
{
	resnet(w, (const unsigned[]){ 3, 4, 6, 3 }, false);
}

static void resnet152(struct writer *w)
{
	resnet(w, (const unsigned[]){ 3, 8, 36, 3 }, true);
}

/* Rank 8 on the query and value projections of 32 layers of width 4096. */
static void lora(struct writer *w)
{
	static const char *const projections[] = { "q_proj", "v_proj" };

	for (unsigned layer = 0; layer < 32; layer++) {
		for (unsigned p = 0; p < 2; p++) {
			char name[80];

			(void)snprintf(name, sizeof(name), "model.layers.%u.self_attn.%s", layer,
				       projections[p]);
			matrix(w, name, "lora_A.weight", 8, 4096);
			matrix(w, name, "lora_B.weight", 4096, 8);
		}
	}
}

static void lenet5(struct writer *w)
{
	conv(w, "conv1", 1, 6, 5);
	vector(w, "conv1", "bias", 6);
	conv(w, "conv2", 6, 16, 5);
	vector(w, "conv2", "bias", 16);
	linear(w, "fc1", 400, 120);
	linear(w, "fc2", 120, 84);
	linear(w, "fc3", 84, 10);
}

/* 4 KB of data. */
static void tiny(struct writer *w)
{
	linear(w, "hidden", 31, 28);
	linear(w, "out", 28, 4);
	vector(w, "out", "scale", 12);
}

static const struct {
	const char *name;
	void (*write)(struct writer *w);
} named[] = {
	{ "tiny", tiny },         { "lenet5", lenet5 },       { "resnet18", resnet18 },
	{ "resnet34", resnet34 }, { "resnet152", resnet152 }, { "lora-7b", lora },
};

static int begin(struct writer *w)
{
	*w = (struct writer){ .json = trib_alloc(HEADER_MAX) };
	if (!w->json) {
		return -ENOMEM;
	}
	w->used = 8;
	put(w, "{");
	return 0;
}

static int finish(struct writer *w, struct load_shape *ret_shape)
{
	uint64_t length;

	put(w, "}");
	while (w->used % 8) {
		put(w, " ");
	}
	if (w->full) {
		trib_free(w->json);
		return -ENOBUFS;
	}
	length = w->used - 8;
	for (unsigned i = 0; i < 8; i++) {
		w->json[i] = (char)(length >> 8 * i & 0xff);
	}
	*ret_shape = (struct load_shape){ w->json, w->used, w->at, w->tensors };
	return 0;
}

int load_shape_by_name(const char *name, struct load_shape *ret_shape)
{
	struct writer w;

	for (size_t i = 0; i < TRIB_COUNT(named); i++) {
		if (strcmp(named[i].name, name) == 0) {
			int rc = begin(&w);

			if (rc) {
				return rc;
			}
			named[i].write(&w);
			return finish(&w, ret_shape);
		}
	}
	return -ENOENT;
}

int load_shape_by_bytes(uint64_t bytes, struct load_shape *ret_shape)
{
	uint64_t elements = bytes < 4 ? 1 : (bytes + 3) / 4;
	struct writer w;
	int rc = begin(&w);

	if (rc) {
		return rc;
	}
	tensor(&w, "w", 1, &elements);
	return finish(&w, ret_shape);
}

void load_shape_fini(struct load_shape *shape)
{
	trib_free(shape->header);
	*shape = (struct load_shape){ .header = NULL };
}
