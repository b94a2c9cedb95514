// SHA-256, as sha256sum prints it.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

struct evp_md_ctx_st;  // OpenSSL's EVP_MD_CTX

namespace gqa {

/// The hash of bytes that come piece by piece. Throws Error (resources) where OpenSSL fails.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256& other);
  Sha256& operator=(Sha256 other) noexcept;

  void update(std::span<const std::byte> data);
  /// Of what has come so far, 64 hexadecimal digits; more may follow.
  std::string hex() const;

 private:
  struct Free {
    void operator()(evp_md_ctx_st* context) const;
  };
  std::unique_ptr<evp_md_ctx_st, Free> context_;
};

/// Throws Error (no_input, io).
std::string sha256_of_file(const std::filesystem::path& file);

}  // namespace gqa
