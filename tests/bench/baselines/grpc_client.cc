// SPDX-License-Identifier: Apache-2.0
// Client side of the gRPC baselines: a thread and a channel of its own per update, 1 MiB pieces that are
// sent out of one mapping of the body, not copied into a message. Tells the same as tests/bench/sender.c.
//
//   grpc_client ADDRESS BODY SKIP CLIENTS UPDATES
#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "aggregate.grpc.pb.h"

namespace {

unsigned long long now_ns()
{
	timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return static_cast<unsigned long long>(t.tv_sec) * 1000000000ull + static_cast<unsigned long long>(t.tv_nsec);
}

struct Outcome {
	unsigned long long last_byte = 0;
	unsigned long long last_answer = 0;
	std::vector<unsigned long long> took;
	unsigned bad = 0;
};

// A Piece whose bytes stay where they are: tag, length, then they.
grpc::ByteBuffer piece_of(const char *data, size_t size)
{
	unsigned char head[8] = { 0x0a };
	size_t n = 1;

	for (size_t left = size; n == 1 || left; left >>= 7) {
		head[n++] = static_cast<unsigned char>((left & 0x7f) | (left >> 7 ? 0x80 : 0));
	}
	grpc::Slice slices[2] = { grpc::Slice(head, n), grpc::Slice(data, size, grpc::Slice::STATIC_SLICE) };
	return grpc::ByteBuffer(slices, 2);
}

void upload(grpc::Channel *channel, const char *data, size_t size, Outcome *out)
{
	constexpr size_t piece_size = 1 << 20;
	unsigned long long start = now_ns();
	grpc::ClientContext context;
	bench::Receipt receipt;
	const grpc::internal::RpcMethod method("/bench.Aggregate/Upload", grpc::internal::RpcMethod::CLIENT_STREAMING);
	std::unique_ptr<grpc::ClientWriter<grpc::ByteBuffer>> writer(
		grpc::internal::ClientWriterFactory<grpc::ByteBuffer>::Create(channel, method, &context, &receipt));

	for (size_t at = 0; at < size; at += piece_size) {
		if (!writer->Write(piece_of(data + at, std::min(piece_size, size - at)))) {
			break;
		}
	}
	writer->WritesDone();
	out->last_byte = now_ns();
	out->bad += !writer->Finish().ok();
	out->last_answer = now_ns();
	out->took.push_back(out->last_answer - start);
}

} // namespace

int main(int argc, char **argv)
{
	struct stat st;

	if (argc != 6) {
		std::fprintf(stderr, "grpc_client ADDRESS BODY SKIP CLIENTS UPDATES\n");
		return 2;
	}
	int fd = open(argv[2], O_RDONLY);
	if (fd < 0 || fstat(fd, &st)) {
		std::perror(argv[2]);
		return 1;
	}
	size_t skip = std::strtoul(argv[3], nullptr, 10);
	size_t clients = std::strtoul(argv[4], nullptr, 10);
	size_t updates = std::strtoul(argv[5], nullptr, 10);
	size_t size = static_cast<size_t>(st.st_size);
	void *body = mmap(nullptr, size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
	if (body == MAP_FAILED) {
		std::perror("mmap");
		return 1;
	}

	std::vector<std::shared_ptr<grpc::Channel>> channels;
	for (size_t i = 0; i < clients; i++) {
		grpc::ChannelArguments args;
		args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1); // a connection each
		args.SetMaxSendMessageSize(8 << 20);
		auto channel = grpc::CreateCustomChannel(argv[1], grpc::InsecureChannelCredentials(), args);
		if (!channel->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(20))) {
			std::fprintf(stderr, "grpc_client: no connection\n");
			return 1;
		}
		channels.push_back(channel);
	}
	std::vector<Outcome> outcomes(clients);
	std::vector<std::thread> threads;
	std::atomic<size_t> next{0};
	unsigned long long began = now_ns();
	for (size_t i = 0; i < clients; i++) {
		threads.emplace_back([&, i] {
			while (next.fetch_add(1) < updates) {
				upload(channels[i].get(), static_cast<const char *>(body) + skip, size - skip, &outcomes[i]);
			}
		});
	}
	Outcome all;
	for (size_t i = 0; i < clients; i++) {
		threads[i].join();
		all.last_byte = std::max(all.last_byte, outcomes[i].last_byte);
		all.last_answer = std::max(all.last_answer, outcomes[i].last_answer);
		all.bad += outcomes[i].bad;
		all.took.insert(all.took.end(), outcomes[i].took.begin(), outcomes[i].took.end());
	}
	std::sort(all.took.begin(), all.took.end());
	rusage usage;
	getrusage(RUSAGE_SELF, &usage);
	std::printf("{\"began_ns\":%llu,\"last_byte_ns\":%llu,\"last_answer_ns\":%llu,\"p50_us\":%.1f,\"p99_us\":%.1f,"
		    "\"p999_us\":%.1f,\"retries\":0,\"reconnects\":0,\"cpu_s\":%.3f,\"codes\":{\"200\":%zu,\"500\":%u}}\n",
		    began, all.last_byte, all.last_answer, static_cast<double>(all.took[all.took.size() / 2]) / 1e3,
		    static_cast<double>(all.took[all.took.size() * 99 / 100]) / 1e3,
		    static_cast<double>(all.took[all.took.size() * 999 / 1000]) / 1e3,
		    static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
			    static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6,
		    updates - all.bad, all.bad);
	std::fflush(stdout);
	_Exit(all.bad ? 1 : 0);
}
