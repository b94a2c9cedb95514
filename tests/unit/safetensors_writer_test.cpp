#include "io/safetensors_writer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>

#include "io/checkpoint.h"
#include "io/json_value.h"
#include "support/expect_error.h"
#include "support/files.h"
#include "support/temp_dir.h"

namespace gqa {
namespace {

using test::expect_error;
using test::get_file;

std::string pattern(int64_t bytes, int seed) {
  std::string data(static_cast<size_t>(bytes), '\0');
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 31 + i / 251 + seed);
  return data;
}

const std::vector<TensorSpec> specs = {{"a", "F32", {3, 5}, 60},
                                       {"b.\"quoted\"", "BF16", {7}, 14},
                                       {"none", "F16", {0, 4}, 0},
                                       {"large", "U8", {3'000'000}, 3'000'000},
                                       {"c", "I64", {2}, 16}};

std::vector<std::string> write_all(const std::filesystem::path& dir, int64_t max_shard_bytes) {
  SafetensorsWriter writer(dir, specs, max_shard_bytes);
  for (size_t i = 0; i < specs.size(); ++i) {
    const std::string data = pattern(specs[i].bytes, static_cast<int>(i));
    writer.write(std::as_bytes(std::span(data)));
  }
  writer.finish();
  std::vector<std::string> names;
  for (const FileHash& file : writer.files()) {
    EXPECT_EQ(file.sha256, sha256_of_file(dir / file.name));
    names.push_back(file.name);
  }
  return names;
}

void expect_all(const std::filesystem::path& dir) {
  const Checkpoint checkpoint = Checkpoint::open(dir);
  ASSERT_EQ(checkpoint.tensors().size(), specs.size());
  for (size_t i = 0; i < specs.size(); ++i) {
    const Tensor& tensor = *checkpoint.tensors()[i];
    EXPECT_EQ(tensor.name, specs[i].name);
    EXPECT_EQ(tensor.dtype_name, specs[i].dtype_name);
    EXPECT_EQ(tensor.shape, specs[i].shape);
    const std::string data = pattern(specs[i].bytes, static_cast<int>(i));
    ASSERT_EQ(tensor.bytes, specs[i].bytes);
    EXPECT_EQ(std::memcmp(tensor.data, data.data(), data.size()), 0) << tensor.name;
  }
}

TEST(SafetensorsWriter, WritesOneFileThatReadsBack) {
  const test::TempDir dir;
  EXPECT_EQ(write_all(dir.path(), 5'000'000), (std::vector<std::string>{"model.safetensors"}));
  expect_all(dir.path());
  const std::string bytes = get_file(dir / "model.safetensors");
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  EXPECT_EQ(length % 8, 0u);
  const std::string start = R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[3,5],)"
                            R"("data_offsets":[0,60]},)";
  EXPECT_EQ(bytes.substr(8, start.size()), start);
}

TEST(SafetensorsWriter, WritesShardsAndTheirIndex) {
  const test::TempDir dir;
  const std::vector<std::string> files = {
      "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
      "model-00003-of-00003.safetensors", "model.safetensors.index.json"};
  EXPECT_EQ(write_all(dir.path(), 74), files);  // a, b and none fill the first to the last byte
  expect_all(dir.path());
  const Json index = read_json(dir / files.back());
  EXPECT_EQ(index.at("metadata").at("total_size"), 3'000'090);
  EXPECT_EQ(index.at("weight_map").dump(), R"({"a":"model-00001-of-00003.safetensors",)"
                                           R"("b.\"quoted\"":"model-00001-of-00003.safetensors",)"
                                           R"("c":"model-00003-of-00003.safetensors",)"
                                           R"("large":"model-00002-of-00003.safetensors",)"
                                           R"("none":"model-00001-of-00003.safetensors"})");
}

TEST(SafetensorsWriter, NeverSplitsATensorAndWritesNoEmptyShard) {
  const test::TempDir dir;
  EXPECT_EQ(write_all(dir.path(), 1).size(), 5u);  // four, as `none` goes with b; and the index
  expect_all(dir.path());
}

TEST(SafetensorsWriter, WritesAFileWithoutTensors) {
  const test::TempDir dir;
  SafetensorsWriter writer(dir.path(), {}, 1);
  writer.finish();
  EXPECT_TRUE(Checkpoint::open(dir.path()).tensors().empty());
}

TEST(SafetensorsWriter, RefusesWhatDoesNotFit) {
  const test::TempDir dir;
  const auto make = [&](std::vector<TensorSpec> tensors, int64_t max_shard_bytes) {
    SafetensorsWriter(dir.path(), std::move(tensors), max_shard_bytes);
  };
  constexpr auto usage = ErrorKind::usage;
  expect_error(usage, {"`a`"}, [&] { make({specs[0], specs[0]}, 9); });
  expect_error(usage, {"`__metadata__`"}, [&] { make({{"__metadata__", "U8", {1}, 1}}, 9); });
  expect_error(usage, {"UTF-8"}, [&] { make({{"\xff", "U8", {1}, 1}}, 9); });
  expect_error(usage, {"`x`", "`F5`"}, [&] { make({{"x", "F5", {1}, 1}}, 9); });
  expect_error(usage, {"`x`", "5 bytes", "F32 [1]"}, [&] { make({{"x", "F32", {1}, 5}}, 9); });
  expect_error(usage, {"`x`"}, [&] { make({{"x", "F32", {-1}, -4}}, 9); });
  expect_error(usage, {"above 0"}, [&] { make({}, 0); });
  SafetensorsWriter writer(dir.path(), {specs[0]}, 100);
  const std::string data(61, '\0');
  const auto bytes = std::as_bytes(std::span(data));
  expect_error(usage, {"`a`", "60", "61"}, [&] { writer.write(bytes); });
  expect_error(usage, {"1 tensors", "0"}, [&] { writer.finish(); });
  writer.write(bytes.first(60));
  expect_error(usage, {"one more"}, [&] { writer.write(bytes); });
  writer.finish();
}

TEST(SafetensorsWriter, SaysWhichFileCannotBeCreated) {
  const test::TempDir dir;
  expect_error(ErrorKind::io, {(dir / "none/model.safetensors").string(), "No such file"},
               [&] { SafetensorsWriter(dir / "none", specs, 5'000'000); });
}

/// Runs a call in a child process that can't make files larger than `bytes`; its exit status.
template <typename Call>
int run_with_file_limit(rlim_t bytes, Call&& call) {
  const pid_t child = ::fork();
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{bytes, bytes};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    ::_exit(call());
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(SafetensorsWriter, SaysWhichFileDidNotFit) {
  const test::TempDir dir;
  const std::string file = (dir / "model.safetensors").string();
  for (const rlim_t limit : {0u, 100u, 1u << 20, 3'000'200u}) {  // header, buffer, large, the rest
    const int status = run_with_file_limit(limit, [&] {
      try {
        write_all(dir.path(), 5'000'000);
        return 1;
      } catch (const Error& error) {
        const std::string message = error.what();
        const bool good = error.kind() == ErrorKind::io && message.find(file) != message.npos &&
                          message.find("File too large") != message.npos;
        return good ? 0 : 2;
      }
    });
    EXPECT_EQ(status, 0) << limit;
  }
}

TEST(OutputFile, SaysThatTheDiskIsFull) {
  if (::access("/dev/full", W_OK) != 0) GTEST_SKIP() << "no /dev/full";
  expect_error(ErrorKind::io, {"/dev/full", "No space left"}, [] {
    OutputFile file("/dev/full");
    file.write("x");
    file.close();
  });
  expect_error(ErrorKind::io, {"/dev/full", "No space left"}, [] {
    OutputFile file("/dev/full");
    file.write(std::string(3 << 20, 'x'));
  });
}

}  // namespace
}  // namespace gqa
