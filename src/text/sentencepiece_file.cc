#include "text/sentencepiece_file.h"

#include <bit>
#include <cmath>

#include "base/error.h"
#include "text/model.h"
#include "text/unicode.h"

namespace atom::text {
namespace {

constexpr size_t kMaxPieces = size_t{1} << 22;
constexpr size_t kMaxPieceBytes = 512;

// Walks the fields of one protobuf message.
//   for (ProtoFields it(bytes, place); it.next();) if (it.number() == 3) use(it.integer());
class ProtoFields {
 public:
  ProtoFields(std::string_view bytes, std::string_view place) : rest_(bytes), place_(place) {}

  bool next() {
    if (rest_.empty()) return false;
    const uint64_t key = varint();
    number_ = key >> 3;
    wire_ = static_cast<unsigned>(key & 7);
    if (number_ == 0 || number_ > 0x1FFFFFFF) broken("has the field number", number_);
    switch (wire_) {
      case 0:
        integer_ = varint();
        break;
      case 1:
        bytes_ = take(8);
        break;
      case 2:
        bytes_ = take(varint());
        break;
      case 5:
        bytes_ = take(4);
        break;
      default:
        broken("has a field of the wire type", wire_);
    }
    return true;
  }

  uint64_t number() const { return number_; }
  uint64_t integer() const { return want(0), integer_; }
  std::string_view bytes() const { return want(2), bytes_; }
  float number32() const {
    want(5);
    uint32_t bits = 0;
    for (size_t i = 4; i-- > 0;) bits = bits << 8 | static_cast<uint8_t>(bytes_[i]);
    return std::bit_cast<float>(bits);
  }

 private:
  [[noreturn]] void broken(std::string_view what, uint64_t value) const {
    fail("{}: the protobuf message {} {}", place_, what, value);
  }
  void want(unsigned wire) const {
    if (wire_ != wire) {
      fail("{}: the protobuf field {} must have the wire type {} and has {}", place_, number_, wire,
           wire_);
    }
  }
  uint64_t varint() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      if (rest_.empty()) broken("ends inside a number after field", number_);
      const auto byte = static_cast<uint8_t>(rest_[0]);
      rest_.remove_prefix(1);
      value |= uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return value;
    }
    broken("has a number of more than 10 bytes after field", number_);
  }
  std::string_view take(uint64_t size) {
    if (size > rest_.size()) {
      fail("{}: the protobuf field {} wants {} bytes and {} are left", place_, number_, size,
           rest_.size());
    }
    const std::string_view out = rest_.substr(0, static_cast<size_t>(size));
    rest_.remove_prefix(static_cast<size_t>(size));
    return out;
  }

  std::string_view rest_;
  std::string_view place_;
  uint64_t number_ = 0;
  unsigned wire_ = 0;
  uint64_t integer_ = 0;
  std::string_view bytes_;
};

SentencePiece read_piece(std::string_view bytes, std::string_view place) {
  SentencePiece piece;
  uint64_t kind = 1;
  for (ProtoFields it(bytes, place); it.next();) {
    if (it.number() == 1) piece.text = it.bytes();
    if (it.number() == 2) piece.score = it.number32();
    if (it.number() == 3) kind = it.integer();
  }
  if (piece.text.empty() || piece.text.size() > kMaxPieceBytes || !is_valid_utf8(piece.text)) {
    fail("{}: the piece must be UTF-8 text of 1 to {} bytes and has {} bytes", place,
         kMaxPieceBytes, piece.text.size());
  }
  if (!std::isfinite(piece.score)) {
    fail("{}: the score must be finite and is {}", place, piece.score);
  }
  if (kind < 1 || kind > 6) fail("{}: the type must be in [1, 6] and is {}", place, kind);
  piece.kind = static_cast<SentencePiece::Kind>(kind);
  return piece;
}

int32_t read_id(uint64_t value) {
  const auto id = static_cast<int64_t>(value);
  return id >= 0 && id <= INT32_MAX ? static_cast<int32_t>(id) : -1;
}

void read_trainer(SentencePieceFile& file, std::string_view bytes, std::string_view place) {
  for (ProtoFields it(bytes, place); it.next();) {
    switch (it.number()) {
      case 3:
        if (it.integer() != 1 && it.integer() != 2) {
          fail("{}: model_type must be 1 (unigram) or 2 (BPE) and is {}", place, it.integer());
        }
        file.algorithm = static_cast<SentencePieceFile::Algorithm>(it.integer());
        break;
      case 24:
        if (it.integer() != 0) fail("{}: treat_whitespace_as_suffix is not supported", place);
        break;
      case 35:
        file.byte_fallback = it.integer() != 0;
        break;
      case 41:
        file.bos = read_id(it.integer());
        break;
      case 42:
        file.eos = read_id(it.integer());
        break;
      default:
        break;
    }
  }
}

void read_normalizer(SentencePieceFile::Normalizer& out, std::string_view bytes,
                     std::string_view place) {
  for (ProtoFields it(bytes, place); it.next();) {
    if (it.number() == 2) out.charsmap = Charsmap::from_bytes(it.bytes(), place);
    if (it.number() == 3) out.add_dummy_prefix = it.integer() != 0;
    if (it.number() == 4) out.remove_extra_whitespaces = it.integer() != 0;
    if (it.number() == 5) out.escape_whitespaces = it.integer() != 0;
  }
}

// Denormalizing changes decoded text; only files made for it have rules here.
void refuse_rules(std::string_view bytes, std::string_view place) {
  for (ProtoFields it(bytes, place); it.next();) {
    if (it.number() == 2 && !it.bytes().empty()) {
      fail("{}: a precompiled_charsmap of {} bytes is not supported here", place,
           it.bytes().size());
    }
  }
}

// The pieces as a whole: ids, and the pieces that every file needs.
void check_pieces(SentencePieceFile& file) {
  using Kind = SentencePiece::Kind;
  if (file.pieces.empty()) fail("{}: has no pieces", file.source);
  file.vocabulary.limit_for(file.pieces.size());
  for (size_t i = 0; i < file.pieces.size(); ++i) {
    const SentencePiece& piece = file.pieces[i];
    const auto place = [&] { return fmt::format("{}: pieces[{}]", file.source, i); };
    if (const int32_t before = file.vocabulary.find(piece.text); before >= 0) {
      fail("{}: the piece '{}' is that of pieces[{}]", place(), piece.text, before);
    }
    file.vocabulary.add(piece.text, static_cast<int64_t>(i), file.source);
    if (piece.kind == Kind::kUnknown && file.unknown >= 0) {
      fail("{}: a second unknown piece, '{}'", place(), piece.text);
    }
    if (piece.kind == Kind::kUnknown) file.unknown = static_cast<int32_t>(i);
    if (piece.kind == Kind::kUnused && file.algorithm == SentencePieceFile::Algorithm::kBpe) {
      fail("{}: the type 5 (unused) is not supported with BPE: '{}'", place(), piece.text);
    }
  }
  if (file.unknown < 0) fail("{}: has no piece of the type 2 (unknown)", file.source);
  if (!file.byte_fallback) return;
  const std::array<int32_t, 256> bytes = byte_tokens(file.vocabulary);
  for (size_t byte = 0; byte < bytes.size(); ++byte) {
    if (bytes[byte] < 0 || file.pieces[static_cast<size_t>(bytes[byte])].kind != Kind::kByte) {
      fail("{}: byte_fallback is on, but there is no piece <0x{:02X}> of the type 6 (byte)",
           file.source, byte);
    }
  }
}

}  // namespace

SentencePieceFile SentencePieceFile::from_bytes(std::string_view bytes, std::string_view source) {
  SentencePieceFile file;
  file.source = source;
  for (ProtoFields it(bytes, source); it.next();) {
    switch (it.number()) {
      case 1:
        if (file.pieces.size() == kMaxPieces)
          fail("{}: has more than {} pieces", source, kMaxPieces);
        file.pieces.push_back(
            read_piece(it.bytes(), fmt::format("{}: pieces[{}]", source, file.pieces.size())));
        break;
      case 2:
        read_trainer(file, it.bytes(), fmt::format("{}: trainer_spec", source));
        break;
      case 3:
        read_normalizer(file.normalizer, it.bytes(), fmt::format("{}: normalizer_spec", source));
        break;
      case 5:
        refuse_rules(it.bytes(), fmt::format("{}: denormalizer_spec", source));
        break;
      default:
        break;
    }
  }
  check_pieces(file);
  return file;
}

}  // namespace atom::text
