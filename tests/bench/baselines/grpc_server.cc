// SPDX-License-Identifier: Apache-2.0
// Baseline: a gRPC streaming server in C++ as one would write it for this. Synchronous API, a thread
// per stream, every 1 MiB piece is folded as it is read (-O3 -march=native), one accumulator whose
// regions have a lock each, no update is ever held whole. As an expert would: pieces are taken as the
// slices they arrive in (no parsed message, no copy of it), frames and reads are large, no probing of
// the bandwidth (0.59 of the CPU of `plain`, which is the generated service with gRPC's defaults).
//
//   grpc_server ELEMENTS UPDATES [plain]  prints {"port":..}, then {"published_ns":..,"received_ns":..} per UPDATES:
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

using Unaligned = float __attribute__((aligned(1)));

void fold(float *__restrict sums, const Unaligned *__restrict in, size_t n, float weight)
{
	for (size_t i = 0; i < n; i++) {
		sums[i] += weight * in[i];
	}
}

// The running sum of a round.
class Mean {
public:
	Mean(size_t elements, unsigned updates)
	    : elements_(elements), updates_(updates), sums_(elements), base_(elements), model_(elements),
	      locks_(elements / kRegion + 1)
	{
	}

	// Floats of an update from element `at` on; false: more than there are.
	bool take(size_t at, const void *data, size_t n)
	{
		if (n > elements_ - at) {
			return false;
		}
		if (at + n == elements_) {
			received_ = now_ns();
		}
		add(at, static_cast<const Unaligned *>(data), n);
		return true;
	}

	grpc::Status end(size_t at, bench::Receipt *receipt)
	{
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
	void add(size_t at, const Unaligned *in, size_t n)
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

const grpc::Status kBad(grpc::StatusCode::INVALID_ARGUMENT, "size");

class Plain final : public bench::Aggregate::Service {
public:
	explicit Plain(Mean *mean) : mean_(mean)
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

			if (data.size() % sizeof(float) || !mean_->take(at, data.data(), n)) {
				return kBad;
			}
			at += n;
		}
		return mean_->end(at, receipt);
	}

private:
	Mean *mean_;
};

// A message of one field, read out of its slices: the tag, the length, floats that slices may cut.
class Cursor {
public:
	Cursor(Mean *mean, size_t at) : mean_(mean), at_(at)
	{
	}

	bool slice(const unsigned char *p, const unsigned char *end)
	{
		for (; p < end && !headed_; p++) {
			if (!seen_++) {
				if (*p != 0x0a) {
					return false;
				}
				continue;
			}
			size_ |= static_cast<size_t>(*p & 0x7f) << (7 * (seen_ - 2));
			headed_ = !(*p & 0x80);
			if (seen_ > 6) {
				return false;
			}
		}
		got_ += static_cast<size_t>(end - p);
		while (cut_ && cut_ < sizeof(rest_) && p < end) {
			rest_[cut_++] = *p++;
		}
		if (cut_ == sizeof(rest_)) {
			cut_ = 0;
			if (!mean_->take(at_++, rest_, 1)) {
				return false;
			}
		}
		size_t n = static_cast<size_t>(end - p) / sizeof(float);
		if (n && !mean_->take(at_, p, n)) {
			return false;
		}
		at_ += n;
		for (p += n * sizeof(float); p < end; p++) {
			rest_[cut_++] = *p;
		}
		return true;
	}

	bool whole() const
	{
		return headed_ && got_ == size_ && !cut_;
	}

	size_t at() const
	{
		return at_;
	}

private:
	Mean *mean_;
	size_t at_;
	size_t size_ = 0;
	size_t got_ = 0;
	unsigned seen_ = 0; // bytes of tag and length
	bool headed_ = false;
	unsigned char rest_[sizeof(float)];
	size_t cut_ = 0;
};

class Raw final : public grpc::Service {
public:
	explicit Raw(Mean *mean) : mean_(mean)
	{
		using Handler = grpc::internal::ClientStreamingHandler<Raw, grpc::ByteBuffer, bench::Receipt>;

		AddMethod(new grpc::internal::RpcServiceMethod(
			"/bench.Aggregate/Upload", grpc::internal::RpcMethod::CLIENT_STREAMING,
			new Handler([](Raw *self, grpc::ServerContext *, grpc::ServerReader<grpc::ByteBuffer> *reader,
				       bench::Receipt *receipt) { return self->upload(reader, receipt); },
				    this)));
	}

private:
	grpc::Status upload(grpc::ServerReader<grpc::ByteBuffer> *reader, bench::Receipt *receipt)
	{
		grpc::ByteBuffer piece;
		std::vector<grpc::Slice> slices;
		size_t at = 0;

		while (reader->Read(&piece)) {
			Cursor cursor(mean_, at);

			if (!piece.Dump(&slices).ok()) {
				return kBad;
			}
			for (const grpc::Slice &slice : slices) {
				if (!cursor.slice(slice.begin(), slice.end())) {
					return kBad;
				}
			}
			if (!cursor.whole()) {
				return kBad;
			}
			at = cursor.at();
		}
		return mean_->end(at, receipt);
	}

	Mean *mean_;
};

void tune(grpc::ServerBuilder *builder)
{
	constexpr int read = 1 << 20;

	builder->AddChannelArgument(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, (16 << 20) - 1);
	builder->AddChannelArgument(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 8 << 20);
	builder->AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
	builder->AddChannelArgument(GRPC_ARG_TCP_READ_CHUNK_SIZE, read);
	builder->AddChannelArgument(GRPC_ARG_TCP_MIN_READ_CHUNK_SIZE, read);
	builder->AddChannelArgument(GRPC_ARG_TCP_MAX_READ_CHUNK_SIZE, read);
}

} // namespace

int main(int argc, char **argv)
{
	int port = 0;

	if (argc != 3 && argc != 4) {
		std::fprintf(stderr, "grpc_server ELEMENTS UPDATES [plain]\n");
		return 2;
	}
	Mean mean(std::strtoul(argv[1], nullptr, 10), static_cast<unsigned>(std::strtoul(argv[2], nullptr, 10)));
	Plain plain(&mean);
	Raw raw(&mean);
	grpc::ServerBuilder builder;
	builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
	builder.SetMaxReceiveMessageSize(8 << 20);
	if (argc == 4) {
		builder.RegisterService(&plain);
	} else {
		builder.RegisterService(&raw);
		tune(&builder);
	}
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
