// What a GGUF file says about a model beside its tensors.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "convert/gguf_tokenizer.h"
#include "convert/source.h"
#include "io/gguf_writer.h"

namespace gqa {

/// llama.cpp's name of what computes this model: `llama`, or `deci` where layers differ in KV
/// heads. The one place that says what can be expressed. Throws Error (bad_data) for anything else.
std::string gguf_architecture(const ModelConfig& config);

/// `main_dtype`: what most of the file is stored as. `tokenizer`: none where the model has none.
/// What a person should know is appended to `notes`.
GgufMetadata gguf_metadata(const SourceModel& source, GgufDType main_dtype,
                           const std::optional<GgufTokenizer>& tokenizer,
                           std::vector<std::string>& notes);

}  // namespace gqa
