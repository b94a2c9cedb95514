// What can go wrong while a GGUF file is written, and what is left behind: nothing.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "gqa/gguf.h"
#include "io/gguf_writer.h"
#include "io/staged_file.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"
#include "support/tiny_llama.h"

namespace gqa {
namespace {

namespace fs = std::filesystem;
using test::expect_error;
using test::TempDir;
using test::TinyLlama;

class GgufErrors : public testing::Test {
 protected:
  GgufErrors() { write({}); }
  void write(const TinyLlama& model) const { test::write_tiny(dir_ / "in", model); }
  /// The tiny model with one element of a tensor set.
  void poke(const TinyLlama& model, std::string_view name, size_t element, float value) const {
    auto tensors = test::tiny_tensors(model);
    for (auto& t : tensors) {
      if (t.name == name) std::memcpy(t.data.data() + 4 * element, &value, sizeof value);
    }
    write(model);
    test::write_safetensors(dir_ / "in" / "model.safetensors", tensors);
  }
  /// Fails, and leaves no file behind.
  void refused(ErrorKind kind, std::initializer_list<std::string_view> words,
               const GgufOptions& options = {}) const {
    expect_error(kind, words, [&] { export_gguf(dir_ / "in", out_, options); });
    EXPECT_EQ(test::folder_content(dir_.path()).size(), 1u);
  }

  const TempDir dir_;
  const fs::path out_ = dir_ / "out.gguf";
};

TEST_F(GgufErrors, ExistingFiles) {
  export_gguf(dir_ / "in", out_, {});
  const std::string first = test::get_file(out_);
  expect_error(ErrorKind::cannot_create, {"out.gguf", "exists", "--force"},
               [&] { export_gguf(dir_ / "in", out_, {}); });
  expect_error(ErrorKind::cannot_create, {"--force"}, [&] { check_gguf_place(out_, false); });
  export_gguf(dir_ / "in", out_, {.dtype = GgufDType::f16, .force = true});
  EXPECT_LT(test::get_file(out_).size(), first.size());
  export_gguf(dir_ / "in", out_, {.dtype = {}, .force = true});
  EXPECT_EQ(test::get_file(out_), first) << "the same model gives the same bytes";
  EXPECT_EQ(test::folder_content(dir_.path()).size(), 2u);
}

TEST_F(GgufErrors, WhatIsNoGgufFileIsNotReplaced) {
  test::put_file(out_, "text");
  fs::create_directory(dir_ / "folder");
  for (const fs::path& out : {out_, dir_ / "folder", dir_ / "in" / "model.safetensors"}) {
    expect_error(ErrorKind::cannot_create, {out.filename().string(), "not a GGUF file"},
                 [&] { export_gguf(dir_ / "in", out, {.dtype = {}, .force = true}); });
  }
  EXPECT_EQ(test::get_file(out_), "text");
  EXPECT_EQ(test::folder_content(dir_.path()).size(), 3u);
}

TEST_F(GgufErrors, MissingParent) {
  expect_error(ErrorKind::cannot_create, {"none"},
               [&] { export_gguf(dir_ / "in", dir_ / "none" / "out.gguf", {}); });
}

TEST_F(GgufErrors, WeightsThatAreNotFinite) {
  poke({}, "model.layers.1.self_attn.k_proj.weight", 23, std::numeric_limits<float>::infinity());
  refused(ErrorKind::bad_data, {"model.safetensors", "layers.1.self_attn.k_proj", "[2, 3]", "inf"});
}

TEST_F(GgufErrors, WeightsThatDoNotFit) {
  poke({}, "model.layers.1.self_attn.q_proj.weight", 23, 70000.0f);
  refused(ErrorKind::bad_data, {"q_proj", "f16", "70000", "[2, 3]"}, {.dtype = GgufDType::f16});
  poke({.width = 64}, "model.embed_tokens.weight", 67, -1e7f);
  refused(ErrorKind::bad_data, {"embed_tokens", "q8_0", "-1", "[1, 3]"},
          {.dtype = GgufDType::q8_0});
}

TEST_F(GgufErrors, StoppedHalfWay) {
  expect_error(ErrorKind::interrupted, {"stop"}, [&] {
    export_gguf(dir_ / "in", out_, {}, [](std::string_view, int64_t done, int64_t) {
      if (done > 0) throw Error(ErrorKind::interrupted, "stop");
    });
  });
  EXPECT_EQ(test::folder_content(dir_.path()).size(), 1u);
}

TEST_F(GgufErrors, ProgressEndsAtTheWhole) {
  int64_t last = -1, whole = 0;
  export_gguf(dir_ / "in", out_, {}, [&](std::string_view what, int64_t done, int64_t total) {
    EXPECT_EQ(what, "export");
    EXPECT_GT(done, last);
    last = done;
    whole = total;
  });
  EXPECT_EQ(last, whole);
  EXPECT_EQ(whole, static_cast<int64_t>(fs::file_size(out_)));
}

TEST_F(GgufErrors, WhatCameMeanwhileStays) {
  StagedFile staged(out_, false, "GGUF");
  test::put_file(staged.path(), "GGUF new");
  test::put_file(out_, "GGUF old");
  expect_error(ErrorKind::cannot_create, {"--force"}, [&] { staged.commit(); });
  EXPECT_EQ(test::get_file(out_), "GGUF old");
}

TEST_F(GgufErrors, LinksLeadToTheFile) {
  test::put_file(dir_ / "real", "GGUF old");
  fs::create_symlink("real", out_);
  export_gguf(dir_ / "in", out_, {.dtype = {}, .force = true});
  EXPECT_TRUE(fs::is_symlink(out_));
  EXPECT_GT(fs::file_size(dir_ / "real"), 100u);
}

// ---- the writer ----

TEST_F(GgufErrors, WriterChecksWhatItIsGiven) {
  const auto usage = ErrorKind::usage;
  const auto open = [&](std::vector<GgufTensor> tensors) {
    return GgufWriter(dir_ / "w", GgufMetadata(), std::move(tensors));
  };
  expect_error(usage, {"`a`", "its own"}, [&] {
    open({{"a", GgufDType::f32, {1}}, {"a", GgufDType::f32, {1}}});
  });
  expect_error(usage, {"`a`", "above 0"}, [&] { open({{"a", GgufDType::f32, {3, 0}}}); });
  expect_error(usage, {"`a`", "blocks of 32"}, [&] { open({{"a", GgufDType::q8_0, {32, 33}}}); });
  constexpr int64_t huge = int64_t{1} << 40;
  expect_error(usage, {"`a`", "overflows"}, [&] { open({{"a", GgufDType::f32, {huge, huge}}}); });
  expect_error(usage, {"`b`", "sum", "overflows"}, [&] {
    open({{"a", GgufDType::f32, {huge, 1 << 20}}, {"b", GgufDType::f32, {huge, 1 << 20}}});
  });
  GgufMetadata metadata;
  metadata.add_bool("k", true);
  expect_error(usage, {"`k`", "twice"}, [&] { metadata.add_u32("k", 1); });
  expect_error(usage, {"`n`", "-1"}, [&] { metadata.add_u32("n", -1); });
}

TEST_F(GgufErrors, WriterWantsExactlyItsTensors) {
  const std::vector<std::byte> data(8);
  GgufWriter writer(dir_ / "w", GgufMetadata(), {{"a", GgufDType::f32, {2}}});
  expect_error(ErrorKind::usage, {"expected 1 tensors, got 0"}, [&] { writer.finish(); });
  expect_error(ErrorKind::usage, {"`a`", "expected 8 bytes, got 4"},
               [&] { writer.write(std::span(data).first(4)); });
  writer.write(data);
  expect_error(ErrorKind::usage, {"one more"}, [&] { writer.write(data); });
  writer.finish();
}

TEST_F(GgufErrors, FullDisk) {
  expect_error(ErrorKind::io, {"/dev/full"}, [&] {
    GgufWriter writer("/dev/full", GgufMetadata(), {{"a", GgufDType::f32, {2}}});
    writer.write(std::vector<std::byte>(8));
    writer.finish();
  });
}

}  // namespace
}  // namespace gqa
