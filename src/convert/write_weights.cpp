#include "convert/write_weights.h"

#include <functional>
#include <limits>
#include <span>
#include <utility>

#include "io/key_directions.h"

namespace gqa {
namespace {

std::vector<TensorSpec> specs_of(const std::vector<OutputTensor>& tensors) {
  std::vector<TensorSpec> specs;
  for (const OutputTensor& tensor : tensors) specs.push_back(tensor.spec());
  return specs;
}

/// Writes what the writer lacks; `tell` hears of the bytes that are done, `progress` of what is
/// made before they are.
void write_tensors(SafetensorsWriter& writer, std::span<const OutputTensor> tensors,
                   ThreadPool& pool, const Progress& progress,
                   const std::function<void(int64_t done)>& tell) {
  int64_t done = 0;
  for (const OutputTensor& tensor : tensors.first(writer.tensors_done())) done += tensor.bytes();
  // While a piece is stored and hashed, the next one is made.
  PieceMaker maker(tensors.subspan(writer.tensors_done()));
  maker.prepare(progress);
  std::span<const std::byte> piece = maker.next(), following;
  while (!piece.empty()) {
    tell(done);
    maker.prepare(progress);
    writer.write(piece, pool, [&] { following = maker.next(); });
    done += std::ssize(piece);
    piece = following;
  }
  tell(done);
  writer.finish();
}

}  // namespace

std::vector<FileHash> write_weights(const ExportJob& job, const std::filesystem::path& dir,
                                    WriteJournal* journal, ThreadPool& pool,
                                    const Progress& progress) {
  SafetensorsWriter writer(dir, specs_of(job.tensors), job.options.output.max_shard_bytes, journal,
                           progress);
  for (size_t i = 0; i < writer.tensors_done(); ++i) {
    if (job.tensors[i].written) job.tensors[i].written(writer.written(i));
  }
  write_tensors(writer, job.tensors, pool, progress, [&](int64_t done) {
    if (progress) progress(job.verb, done, job.plan.output_bytes);
  });
  return writer.files();
}

std::vector<FileHash> write_key_directions(const ExportJob& job, const std::filesystem::path& dir,
                                           ThreadPool& pool, const Progress& progress) {
  if (job.key_directions.empty()) return {};
  SafetensorsWriter writer(dir, specs_of(job.key_directions), std::numeric_limits<int64_t>::max(),
                           nullptr, {}, key_directions_stem);
  write_tensors(writer, job.key_directions, pool, progress, [&](int64_t) {
    // Made with the weights, but for those that another run wrote.
    if (progress) progress(job.verb, job.plan.output_bytes, job.plan.output_bytes);
  });
  return writer.files();
}

int64_t write_weights_bytes() {
  constexpr int64_t output_buffer_bytes = int64_t{1} << 20;
  return PieceMaker::memory_bytes + output_buffer_bytes;
}

}  // namespace gqa
