// Allocations beyond so many bytes more than the process has fail (std::bad_alloc) while it lives. Not with sanitizers,
// whose own memory counts: there it does nothing.
#pragma once

#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <stdexcept>

#include "testing/sanitized.h"

namespace atom::testing {

class MemoryLimit {
 public:
  explicit MemoryLimit(rlim_t more_bytes) {
    if (kSanitized) return;
    rlim_t pages = 0;  // mapped now
    std::ifstream("/proc/self/statm") >> pages;
    if (pages == 0 || ::getrlimit(RLIMIT_AS, &old_limit_) != 0)
      throw std::runtime_error("the size of this process is unknown");
    rlimit limit = old_limit_;
    limit.rlim_cur = pages * static_cast<rlim_t>(::sysconf(_SC_PAGESIZE)) + more_bytes;
    if (::setrlimit(RLIMIT_AS, &limit) != 0) throw std::runtime_error("setrlimit failed");
  }
  ~MemoryLimit() {
    if (!kSanitized) ::setrlimit(RLIMIT_AS, &old_limit_);
  }
  MemoryLimit(const MemoryLimit&) = delete;
  MemoryLimit& operator=(const MemoryLimit&) = delete;

 private:
  rlimit old_limit_ = {};
};

}  // namespace atom::testing
