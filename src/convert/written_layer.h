// A converted layer that an earlier run wrote.
#pragma once

#include <optional>

#include "convert/merge.h"
#include "gqa/dtype.h"
#include "io/safetensors_writer.h"

namespace gqa {

/// Where its attention lies, projection by projection: the files hold more than memory should.
class WrittenLayer {
 public:
  using Part = std::vector<double> MergedLayer::*;

  void add(Part part, DType dtype, WrittenTensor tensor);
  /// Whether all that a layer has is there; the last one may be missing where a run was stopped.
  bool is_whole(bool biased) const;
  /// What the files hold of it.
  MergedLayer read() const;
  /// How refining went, as to_note() told the journal.
  std::optional<LayerRefinement> refined(int64_t layer) const;

 private:
  struct Place {
    Part part;
    DType dtype;
    WrittenTensor tensor;
  };
  std::vector<Place> places_;
};

Json to_note(const LayerRefinement& refined);

}  // namespace gqa
