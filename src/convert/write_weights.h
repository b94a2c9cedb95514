// The weights of a converted model, from the source's tensors to files.
#pragma once

#include <filesystem>
#include <vector>

#include "convert/export.h"
#include "core/thread_pool.h"
#include "io/safetensors_writer.h"

namespace gqa {

/// Writes all tensors of the job, in the order of layers; with a journal, those that it lacks.
/// Returns the files and their hashes. The pool changes nothing but the time.
std::vector<FileHash> write_weights(const ExportJob& job, const std::filesystem::path& dir,
                                    WriteJournal* journal, ThreadPool& pool,
                                    const Progress& progress);

/// Writes the job's key directions, if it has any, as write_weights() does; to be called after it.
std::vector<FileHash> write_key_directions(const ExportJob& job, const std::filesystem::path& dir,
                                           ThreadPool& pool, const Progress& progress);

/// Memory that write_weights() takes, beside what an OutputTensor's `make` does.
int64_t write_weights_bytes();

}  // namespace gqa
