// Sanitizers slow a test down by 5 to 20 times: there, long lists of cases are thinned. Without them every case runs.
#pragma once

namespace atom::testing {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

// Whether the case at `index` of a list runs: under sanitizers one of `every`, a number that shares no factor with the
// lengths of the loops inside, so that each of their values comes up.
constexpr bool is_chosen(int index, int every) { return !kSanitized || index % every == 0; }

}  // namespace atom::testing
