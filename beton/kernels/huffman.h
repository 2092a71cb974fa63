// JPEG's entropy coding: the bits of a segment, the tables, and the decoding of one block.
// Only jpeg.cpp includes this.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "compiler.h"

namespace kernels {
namespace {

// Coefficients are kept in an order that suits the inverse DCT (idct.h). A 1-D transform combines rows 0 and 4,
// 2 and 6, 7 and 1, 5 and 3: these lie side by side, as four pairs of rows, with the columns of a row in that
// same order.
constexpr uint8_t ROW_AT[8] = {0, 33, 16, 49, 1, 48, 17, 32}, COLUMN_AT[8] = {0, 10, 4, 14, 2, 12, 6, 8};

// Where the k-th coefficient of a JPEG block is.
struct Zigzag {
    uint8_t at[64] = {};
    constexpr Zigzag() {
        int row = 0, column = 0;
        for (int k = 0; k < 64; ++k) {
            at[k] = static_cast<uint8_t>(ROW_AT[row] + COLUMN_AT[column]);
            bool up = (row + column) % 2 == 0;
            if (up && column == 7) ++row;
            else if (up && row == 0) ++column;
            else if (up) --row, ++column;
            else if (row == 7) ++column;
            else if (column == 0) ++row;
            else ++row, --column;
        }
    }
};
constexpr Zigzag ZIGZAG;

// Bits that are to come, the next one at the top.
struct Bits {
    uint64_t bits = 0;
    unsigned count = 0;             // so many of them count, modulo 64
    const uint8_t* next = nullptr;  // the bytes after them

    // At least 56 bits count afterwards. Reads 8 bytes.
    ALWAYS_INLINE void fill() {
        uint64_t more;
        std::memcpy(&more, next, 8);
        more = __builtin_bswap64(more);
        count &= 63;
        bits |= more >> count;
        next += (63 - count) >> 3;
        count |= 56;
    }

    ALWAYS_INLINE uint32_t peek(int n) const { return static_cast<uint32_t>(bits >> (64 - n)); }

    // Only the lowest 6 bits of n matter: table entries have the length there.
    ALWAYS_INLINE void drop(uint32_t n) {
        bits <<= n & 63;
        count -= n;
    }

    // The number of JPEG that begins after `start` bits and has 63 - rest (0 to 15) of them.
    ALWAYS_INLINE int number(uint64_t start, uint64_t rest) const {
        uint64_t top = bits << (start & 63), flip = (top >> 63) - 1;
        return static_cast<int>(((top ^ flip) >> 1 >> (rest & 63) ^ flip) - flip);
    }
};

// The bytes of a segment, some at a time, without the zeros that follow each 255.
struct Segment {
    static constexpr int WORST = 2048;  // an MCU of 6 blocks takes 6 x 64 x 31 bits or less
    static constexpr int CHUNK = 8192, ROOM = WORST + CHUNK + WORST + 64;

    const uint8_t *raw = nullptr, *end = nullptr;  // what has not been looked at
    uint8_t *bytes = nullptr, *filled = nullptr;   // a buffer of ROOM bytes, and the end of what is there
    const uint8_t* limit = nullptr;                // no MCU begins here or later before more() was called
    bool ended = false;                            // at a marker or at the end of the file

    void start(const uint8_t* from, const uint8_t* to, uint8_t* buffer) {
        raw = from;
        end = to;
        bytes = filled = buffer;
        limit = nullptr;
        ended = false;
    }

    // False where the data have ended some bytes ago.
    bool more(Bits& bits) {
        if (ended) return false;
        size_t left = bits.next ? static_cast<size_t>(filled - bits.next) : 0;
        if (left) std::memmove(bytes, bits.next, left);
        bits.next = bytes;
        filled = bytes + left;
        size_t room = CHUNK;
        while (!ended && room > 0) {
            size_t most = std::min(room, static_cast<size_t>(end - raw));
            auto full = static_cast<const uint8_t*>(std::memchr(raw, 0xff, most));
            size_t plain = full ? static_cast<size_t>(full - raw) : most;
            std::memcpy(filled, raw, plain);
            filled += plain;
            raw += plain;
            room -= plain;
            if (full) {
                const uint8_t* after = raw + 1;
                while (after < end && *after == 0xff) ++after;
                ended = after == end || *after != 0;
                if (ended) break;
                *filled++ = 0xff;
                --room;
                raw = after + 1;
            } else if (raw == end) {
                ended = true;
            }
        }
        limit = ended ? filled + 9 : filled - WORST;
        return true;
    }

    bool used_too_much(const Bits& bits) const {
        return (bits.next - filled) * 8 > static_cast<int64_t>(bits.count & 63);
    }
};

// The next marker (its 255), or the end.
inline const uint8_t* find_marker(const uint8_t* at, const uint8_t* end) {
    while (at < end) {
        at = static_cast<const uint8_t*>(std::memchr(at, 0xff, static_cast<size_t>(end - at)));
        if (!at) return end;
        if (end - at > 1 && at[1] != 0 && at[1] != 0xff) return at;
        ++at;
    }
    return end;
}

constexpr int DC_PEEK = 9, AC_PEEK = 10, SKIP_PEEK = 12;

// The codes of a table as the file has them.
struct Codes {
    uint8_t counts[16];    // codes of 1, 2, ... 16 bits
    uint8_t symbols[256];  // in the order of the codes; zeros after the last one

    int photos;            // so many had these codes, one after another (2: or more); 0: the table is not made

    // The end of the codes of each length as 16 bits, and what to add to a code to find its symbol.
    uint32_t ends[18];
    int32_t offsets[17];

    // False where there are more codes than bits allow.
    bool possible() {
        uint32_t code = 0;
        int32_t before = 0;
        for (int length = 1; length <= 16; ++length) {
            offsets[length] = before - static_cast<int32_t>(code);
            code += counts[length - 1];
            before += counts[length - 1];
            if (code > 1u << length) return false;
            ends[length] = code << (16 - length);
            code <<= 1;
        }
        ends[17] = 0xffffffff;
        return true;
    }

    // The symbol of the code at the top of the bits, which has `length` bits or more; -1 if there is none.
    // At least 16 bits must count.
    int symbol(Bits& from, int length) const {
        uint32_t top = from.peek(16);
        while (top >= ends[length]) ++length;
        if (length > 16) return -1;
        from.drop(length);
        return symbols[static_cast<int32_t>(top >> (16 - length)) + offsets[length]];
    }
};

// The lowest 6 bits of the entries of all tables tell how many bits they use up. Besides: the block ends after them;
// the entry says nothing, look it up another way.
constexpr uint32_t END = 64, SPECIAL = 128;

struct DcTable {
    Codes codes;
    uint32_t entries[1 << DC_PEEK];  // bits 8-15: the length of the code, 16-23: 63 less the size of the number

    void build() {
        uint32_t* to = entries;
        const uint8_t* symbol = codes.symbols;
        for (int length = 1; length <= DC_PEEK; ++length)
            for (int i = 0; i < codes.counts[length - 1]; ++i, ++symbol, to += 1 << (DC_PEEK - length))
                std::fill_n(to, 1 << (DC_PEEK - length), entry(length, *symbol));
        std::fill(to, entries + (1 << DC_PEEK), SPECIAL);
    }

    static uint32_t entry(int length, int size) {
        return static_cast<uint32_t>((63 - size) << 16 | length << 8 | (length + size));
    }

    // The difference to the DC before. At least 31 bits must count.
    ALWAYS_INLINE int decode(Bits& from, bool& damaged) const {
        uint32_t found = entries[from.peek(DC_PEEK)];
        if (__builtin_expect(found & SPECIAL, 0)) {
            Bits copy = from;  // so that `from` can stay in registers
            int symbol = codes.symbol(copy, DC_PEEK + 1);
            from = copy;
            damaged |= symbol < 0;
            found = entry(0, symbol < 0 ? 0 : symbol);
        }
        int value = from.number(found >> 8 & 255, found >> 16);
        from.drop(found);
        return value;
    }
};

struct AcTable {
    Codes codes;

    // One or two coefficients and perhaps the end of the block. Of two, the value of the first one is in the entry;
    // the number of the other one is taken from the bits, and may go beyond those that were looked at.
    struct Entry {
        uint8_t used;    // bits, and END
        uint8_t before;  // how far the first one is: the zeros before it (where there is but one: before that)
        uint8_t more;    // how much further the last one is (0 where there is but one); NONE: this entry says nothing
        uint8_t start;   // where its number begins
        uint8_t rest;    // 63 less the size of that (16 zeros, and the end: the size is 0, the value too)
        uint8_t many;    // how many there are
        int16_t value;   // of the first one of two
    };
    static constexpr uint8_t NONE = 255;
    Entry entries[1 << AC_PEEK];

    // As many coefficients as there are codes, and perhaps the end. Bits 8-15: how far they go (255: look elsewhere).
    uint16_t skips[1 << SKIP_PEEK];
    bool has_skips;

    static bool good(int symbol) { return (symbol & 15) != 0 || symbol == 0 || symbol == 0xf0; }

    void build() {
        // The codes in the order of the table, and the one for the end
        int lengths[256], count = 0, end_length = 99, end_code = 0;
        for (int length = 1, code = 0; length <= AC_PEEK; ++length, code <<= 1)
            for (int i = 0; i < codes.counts[length - 1]; ++i, ++code, ++count) {
                lengths[count] = length;
                if (codes.symbols[count] == 0) end_length = length, end_code = code;
            }
        auto byte = [](int value) { return static_cast<uint8_t>(value); };
        auto ending = [&](Entry entry, int length) {
            entry.used = byte((entry.used + length) | END);
            return entry;
        };
        const Entry none = {0, 0, NONE, 0, 63, 0, 0}, empty = {0, 0, 0, 0, 63, 0, 0};
        Entry* to = entries;
        for (int i = 0; i < count; ++i) {
            int symbol = codes.symbols[i], length = lengths[i], size = symbol & 15, rest = AC_PEEK - length - size;
            Entry alone = {byte(length + size), byte(symbol >> 4), 0, byte(length), byte(63 - size), 1, 0};
            if (!good(symbol)) alone = none;
            if (symbol == 0) alone = ending(empty, length);
            if (!good(symbol) || symbol == 0 || rest <= 0) {
                to = std::fill_n(to, 1 << (AC_PEEK - length), alone);
                continue;
            }
            for (int bits = 0; bits < 1 << size; ++bits) {
                Entry* stop = to + (1 << rest);
                for (int j = 0; j < count && lengths[j] <= rest; ++j) {
                    int second = codes.symbols[j], width = rest - lengths[j];
                    Entry entry = second == 0 ? ending(alone, lengths[j]) : alone, *begin = to;
                    if (second != 0 && good(second)) {
                        entry.start = byte(length + size + lengths[j]);
                        entry.rest = byte(63 - (second & 15));
                        entry.used = byte(entry.start + (second & 15));
                        entry.more = byte((second >> 4) + 1);
                        entry.many = 2;
                        entry.value = static_cast<int16_t>(bits < (1 << size) / 2 ? bits + 1 - (1 << size) : bits);
                    }
                    to = std::fill_n(to, 1 << width, entry);
                    // And the end of the block, where that fits in too
                    int left = width - (second & 15) - end_length;
                    for (int k = 0; entry.many == 2 && left >= 0 && k < 1 << (second & 15); ++k)
                        std::fill_n(begin + (k << (left + end_length)) + (end_code << left), 1 << left,
                                    ending(entry, end_length));
                }
                to = std::fill_n(to, stop - to, alone);
            }
        }
        std::fill(to, entries + (1 << AC_PEEK), none);
        has_skips = false;
    }

    void build_skips() {
        constexpr int SIZE = 1 << SKIP_PEEK;
        uint16_t single[SIZE] = {}, *to = single;  // the code at the top; in the upper byte its symbol
        const uint8_t* symbol = codes.symbols;
        for (int length = 1; length <= SKIP_PEEK; ++length)
            for (int i = 0; i < codes.counts[length - 1]; ++i, ++symbol)
                to = std::fill_n(to, 1 << (SKIP_PEEK - length), static_cast<uint16_t>(*symbol << 8 | length));
        for (int i = 0; i < SIZE; ++i) {
            int used = 0, far = 0, end = 0;
            while (used < SKIP_PEEK && !end) {
                int code = single[i << used & (SIZE - 1)];
                if (!code || used + (code & 255) > SKIP_PEEK || !good(code >> 8)) break;
                used += (code & 255) + (code >> 8 & 15);
                if (code >> 8 == 0) end = END;
                else far += (code >> 12) + 1;
            }
            skips[i] = static_cast<uint16_t>(used == 0 ? 255 << 8 : far << 8 | end | used);
        }
        has_skips = true;
    }

    // One coefficient (or the end: then k becomes 64) the slow way: any code. Returns its value and moves k to it;
    // k is 64 or more where there is none, 255 where the data are damaged.
    int one(Bits& from, uint64_t& k) const {
        from.fill();
        int symbol = codes.symbol(from, 1);
        if (symbol == 0) {
            k = 64;
            return 0;
        }
        k += static_cast<unsigned>(symbol) >> 4;
        if (symbol < 0 || !good(symbol) || k > 63) {
            k = 255;
            return 0;
        }
        unsigned size = symbol & 15;
        int value = from.number(0, 63 - size);
        from.drop(size);
        return value;
    }

    // The coefficients of a block but the first, into `block` (zeros before).
    // Returns 0 if there are none, more than 63 for damaged data.
    ALWAYS_INLINE uint64_t decode(Bits& from, int16_t* block) const {
        uint64_t k = 1;
        for (;;) {
            from.fill();
#pragma GCC unroll 2
            for (int i = 0; i < 2; ++i) {
                const Entry& entry = entries[from.peek(AC_PEEK)];
                const uint32_t used = entry.used;
                uint64_t first = k + entry.before, last = first + entry.more;
                if (__builtin_expect(last >= 63, 0)) goto slow;
                block[ZIGZAG.at[first]] = entry.value;
                block[ZIGZAG.at[last]] = static_cast<int16_t>(from.number(entry.start, entry.rest));
                from.drop(used);
                if (used & END) return k - 1 + entry.many;
                k = last + 1;
            }
            continue;
        slow:
            Bits copy = from;  // so that `from` can stay in registers
            uint64_t before = k - 1, at = k;
            int value = one(copy, at);
            k = at;
            from = copy;
            if (k > 63) return k == 255 ? k : before;
            block[ZIGZAG.at[k]] = static_cast<int16_t>(value);
            if (++k > 63) return 63;
        }
    }

    // The same for a block that is of no interest.
    ALWAYS_INLINE uint64_t skip(Bits& from) const {
        uint64_t k = 1;
        for (;;) {
            from.fill();
#pragma GCC unroll 2
            for (int i = 0; i < 2; ++i) {
                uint32_t entry = skips[from.peek(SKIP_PEEK)];
                uint64_t end = k + (entry >> 8);
                if (__builtin_expect(end >= 64, 0)) goto slow;
                from.drop(entry);
                if (entry & END) return 0;
                k = end;
            }
            continue;
        slow:
            Bits copy = from;
            uint64_t at = k;
            one(copy, at);
            k = at;
            from = copy;
            if (k > 63) return k == 255 ? k : 0;
            if (++k > 63) return 0;
        }
    }
};

}  // namespace
}  // namespace kernels
