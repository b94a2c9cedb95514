#include "io/sha256.h"

#include <openssl/evp.h>

#include <array>

#include "core/fail.h"
#include "core/mapped_file.h"

namespace gqa {

std::string sha256_of_file(const std::filesystem::path& file) {
  const MappedFile mapped(file);
  const auto bytes = mapped.bytes();
  std::array<unsigned char, 32> digest{};
  if (EVP_Digest(bytes.data(), bytes.size(), digest.data(), nullptr, EVP_sha256(), nullptr) != 1) {
    fail(ErrorKind::resources, "{}: SHA-256 failed", file.string());
  }
  std::string text;
  for (const unsigned char byte : digest) text += fmt::format("{:02x}", byte);
  return text;
}

}  // namespace gqa
