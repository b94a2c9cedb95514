// A model folder with other heads.
#pragma once

#include <functional>
#include <map>

#include "core/half.h"
#include "regroup/heads.h"
#include "support/tiny_llama.h"

namespace gqa::test {

/// Columns [begin, begin + n) of a matrix as the values of a tensor.
inline std::vector<float> columns_of(const Matrix& matrix, int64_t begin, int64_t n) {
  std::vector<float> values;
  for (int64_t r = 0; r < matrix.rows(); ++r) {
    for (int64_t c = begin; c < begin + n; ++c) values.push_back(static_cast<float>(matrix(r, c)));
  }
  return values;
}

/// The folder again, in f32, with what `change` makes of each layer's heads: as many, of the same
/// size.
inline void change_heads(const std::filesystem::path& from, const std::filesystem::path& to,
                         const std::function<Heads(Heads)>& change) {
  std::filesystem::create_directory(to);
  for (const char* name : {"config.json", "tokenizer.json"}) {
    if (std::filesystem::exists(from / name)) std::filesystem::copy_file(from / name, to / name);
  }
  const ModelConfig config = load_config(from);
  const Checkpoint checkpoint = Checkpoint::open(from);
  std::map<const Tensor*, std::vector<float>> changed;
  for (int64_t l = 0; l < config.n_layers; ++l) {
    const AttentionTensors t = attention_tensors(checkpoint, l);
    const Heads heads = change(load_heads(config, l, t));
    changed[t.q] = columns_of(heads.q, 0, config.width);
    changed[t.k] = columns_of(heads.k, 0, config.width);
    changed[t.v] = columns_of(heads.v, 0, config.width);
    changed[t.o] = columns_of(heads.o, 0, heads.o.cols());
    if (!config.attention_bias) continue;
    changed[t.q_bias] = columns_of(heads.q, config.width, 1);
    changed[t.k_bias] = columns_of(heads.k, config.width, 1);
    changed[t.v_bias] = columns_of(heads.v, config.width, 1);
  }
  std::vector<RawTensor> tensors;
  for (const Tensor* tensor : checkpoint.tensors()) {
    std::vector<float> values;
    if (const auto found = changed.find(tensor); found != changed.end()) {
      values = found->second;
    } else {
      for (int64_t i = 0; i < tensor->elements; ++i) {
        values.push_back(load_element(tensor->data, *tensor->dtype, i));
      }
    }
    tensors.push_back(raw_tensor(tensor->name, tensor->shape, values, DType::f32));
  }
  write_safetensors(to / "model.safetensors", tensors);
}

}  // namespace gqa::test
