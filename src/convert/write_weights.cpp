#include "convert/write_weights.h"

#include <utility>

namespace gqa {

std::vector<FileHash> write_weights(const ExportJob& job, const std::filesystem::path& dir,
                                    WriteJournal* journal, ThreadPool& pool,
                                    const Progress& progress) {
  std::vector<TensorSpec> specs;
  for (const OutputTensor& tensor : job.tensors) specs.push_back(tensor.spec());
  SafetensorsWriter writer(dir, std::move(specs), job.options.output.max_shard_bytes, journal,
                           progress);
  int64_t done = 0;
  for (size_t i = 0; i < writer.tensors_done(); ++i) done += job.tensors[i].bytes();

  // While a piece is stored and hashed, the next one is made.
  PieceMaker maker(std::span(job.tensors).subspan(writer.tensors_done()));
  const auto tell = [&] {
    if (progress) progress(job.verb, done, job.plan.output_bytes);
  };
  maker.prepare(tell);
  std::span<const std::byte> piece = maker.next(), following;
  while (!piece.empty()) {
    tell();
    maker.prepare(tell);
    writer.write(piece, pool, [&] { following = maker.next(); });
    done += std::ssize(piece);
    piece = following;
  }
  tell();
  writer.finish();
  return writer.files();
}

int64_t write_weights_bytes() {
  constexpr int64_t output_buffer_bytes = int64_t{1} << 20;
  return PieceMaker::memory_bytes + output_buffer_bytes;
}

}  // namespace gqa
