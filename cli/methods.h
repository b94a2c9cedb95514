// Names of the methods of conversion, for shells to offer. Whether a name fits, the library says.
#pragma once

#include <string>
#include <vector>

namespace gqa::cli {

/// All but manual:FILE.
inline const std::vector<std::string> groupings{"neighbour", "random",     "similarity",
                                                "kmeans",    "key-driven", "learned"};
inline const std::vector<std::string> merges{"mean", "first", "random", "medoid", "aligned", "pca"};

}  // namespace gqa::cli
