// Scores of pieces in place of merges.
#pragma once

#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "tokenizer/tokenizer_file.h"

namespace gqa {

/// A file's merges in the order of their ranks; of a pair given twice, the last counts.
std::vector<std::pair<std::string, std::string>> ranked_merges(const TokenizerFile& file);

/// What a token's score is, by id. llama.cpp's `llama` tokenizer has no merges: of all neighbours
/// that together are a token, it joins those with the highest score. That is the same where every
/// such pair is a merge and ranks depend on what a merge makes. Throws Error (bad_data, naming
/// file, field and tokens) where it is not. `added`: tokens that are found before anything is
/// merged.
std::vector<float> piece_scores(const TokenizerFile& file, int64_t vocab_size,
                                const std::unordered_set<std::string>& added);

}  // namespace gqa
