// The version of the library that these headers belong to.
#pragma once

// CMake's project() reads these three, and so do the packages: they are said here alone.
#define GQA_VERSION_MAJOR 0
#define GQA_VERSION_MINOR 1
#define GQA_VERSION_PATCH 0

#define GQA_TEXT_OF_EXPANDED(x) #x
#define GQA_TEXT_OF(x) GQA_TEXT_OF_EXPANDED(x)
/// "0.1.0", as a string literal.
#define GQA_VERSION              \
  GQA_TEXT_OF(GQA_VERSION_MAJOR) \
  "." GQA_TEXT_OF(GQA_VERSION_MINOR) "." GQA_TEXT_OF(GQA_VERSION_PATCH)
