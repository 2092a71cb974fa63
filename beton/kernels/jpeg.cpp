// Baseline JPEGs: the wanted part of them, as planes of YCbCr.
//
// An entropy-coded segment cannot be entered in the middle, so all that is before the wanted blocks is decoded too,
// but its coefficients go nowhere. Restart markers divide a photo into many segments: those that the part does not
// touch are passed over. Blocks of the wanted rows and columns go through the inverse DCT, some at a time.
//
// Decoded are baseline JPEGs of one channel, or of YCbCr with 4:4:4, 4:2:2, 4:4:0, 4:2:0 or 4:1:1 sampling. All others
// (progressive, arithmetic, RGB, ...) are left to Python.

#include <algorithm>
#include <cstdlib>
#include <new>

#include "huffman.h"
#include "idct.h"
#include "jpeg_header.h"
#include "kernels.h"

namespace kernels {
namespace {

constexpr int BATCH = 32;  // blocks that go through the inverse DCT together

// What stays from photo to photo.
struct Tables {
    alignas(64) int16_t blocks[BATCH * 64];  // zeros between photos
    Pending pending[BATCH];
    uint8_t segment[Segment::ROOM];
    DcTable dc[4];
    AcTable ac[4];
};

// A channel, as it is decoded.
struct Channel {
    int h, v;                          // h x v blocks in an MCU
    int side;                          // of a block of 8 x 8, in samples of the shrunken photo
    int64_t top, left, bottom, right;  // the wanted blocks
    uint8_t* pixels;                   // their samples
    int64_t step;
    int16_t quant[64];                 // in the order of the coefficients
    const DcTable* dc_table;
    const AcTable* ac_table;
    uint32_t dc;                       // of the block before
};

// A row of blocks of a channel in a row of MCUs.
struct Line {
    Channel* channel;
    int64_t left, right;  // the wanted blocks; none if `to` is null
    uint8_t* to;          // where the samples of the first one go
};

// The decoding of a photo.
struct Work {
    Channel channels[3];
    int count;                         // of channels
    int64_t rows, columns;             // of MCUs
    int64_t top, left, bottom, right;  // the MCUs that any channel wants
    int64_t interval;                  // between restart markers
    Tables* tables;
    int waiting;                       // blocks in tables->pending
    Segment segment;
    bool strict;                       // doubt what other decoders may take otherwise:
    bool absurd;                       // coefficients that no picture has, and what is not complete
};

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// At least so many bytes, of any content.
uint8_t* reserve(std::vector<uint8_t>& bytes, size_t size) {
    if (bytes.size() < size) {
        bytes.clear();  // nothing to copy
        bytes.resize(size);
    }
    return bytes.data();
}

// Make the decoding table of some codes, unless it is there already from an earlier photo.
template <class Table>
bool renew(const uint8_t* raw, Table& table, int largest) {
    if (!raw) return false;
    size_t symbols = 0;
    for (int i = 0; i < 16; ++i) symbols += raw[i];
    Codes& codes = table.codes;
    if (codes.photos && std::memcmp(codes.counts, raw, 16) == 0 && std::memcmp(codes.symbols, raw + 16, symbols) == 0) {
        codes.photos = 2;
        return true;
    }
    codes.photos = 0;
    std::memset(codes.symbols, 0, sizeof codes.symbols);
    std::memcpy(codes.counts, raw, 16);
    std::memcpy(codes.symbols, raw + 16, symbols);
    if (!codes.possible()) return false;
    for (size_t i = 0; i < symbols; ++i)
        if (codes.symbols[i] > largest) return false;
    table.build();
    codes.photos = 1;
    return true;
}

// The tables that the channels need. False where one is missing or impossible.
bool set_tables(const Header& header, Work& work) {
    Tables& tables = *work.tables;
    bool done_dc[4] = {}, done_ac[4] = {};
    for (int i = 0; i < work.count; ++i) {
        const Component& component = header.component[i];
        Channel& channel = work.channels[i];
        const uint8_t* quants = header.quants[component.quant_number];
        if (!quants) return false;
        for (int k = 0; k < 64; ++k) {
            int value = header.wide_quants[component.quant_number] ? number16(quants + 2 * k) : quants[k];
            channel.quant[ZIGZAG.at[k]] = static_cast<int16_t>(value);
        }
        int dc = component.dc_number, ac = component.ac_number;
        if (!done_dc[dc] && !renew(header.dc[dc], tables.dc[dc], 15)) return false;
        if (!done_ac[ac] && !renew(header.ac[ac], tables.ac[ac], 255)) return false;
        done_dc[dc] = done_ac[ac] = true;
        // Worth it only for tables that come again
        if (tables.ac[ac].codes.photos == 2 && !tables.ac[ac].has_skips) tables.ac[ac].build_skips();
        channel.dc_table = &tables.dc[dc];
        channel.ac_table = &tables.ac[ac];
    }
    return true;
}

// Which blocks of each channel are wanted, and where their samples go. False if the photo cannot have them.
bool plan(const Header& header, size_t size, const Rect& part, int shrink, Work& work, Scratch& scratch,
          Picture& picture) {
    picture.kind = work.count == 1 ? Picture::GRAY : Picture::YCC;
    picture.shrink = shrink;
    const int h = header.component[0].h, v = header.component[0].v;
    work.rows = divide_up(header.height, 8 * v);
    work.columns = divide_up(header.width, 8 * h);
    work.interval = header.interval ? header.interval : work.rows * work.columns;
    work.top = work.rows;
    work.left = work.columns;
    int64_t blocks = 0;
    for (int i = 0; i < work.count; ++i) {
        Channel& channel = work.channels[i];
        Plane& plane = picture.planes[i];
        channel.h = header.component[i].h;
        channel.v = header.component[i].v;
        // The colour of 4:2:0 is small already: it is shrunken less
        const int less = i > 0 && std::min(h, v) == 2 && shrink > 0 ? 1 : 0;
        const int side = channel.side = 8 >> (shrink - less);
        plane.tall = i > 0 ? v >> less : 1;
        plane.wide = i > 0 ? h >> less : 1;
        plane.full_height = divide_up(divide_up(header.height, 1 << shrink), plane.tall);
        plane.full_width = divide_up(divide_up(header.width, 1 << shrink), plane.wide);
        // A sample covers tall x wide pixels of the photo; the colour has a margin of one sample
        const int64_t tall = int64_t(plane.tall) << shrink, wide = int64_t(plane.wide) << shrink, margin = i > 0;
        channel.top = std::max<int64_t>(part.top / tall - margin, 0) / side;
        channel.left = std::max<int64_t>(part.left / wide - margin, 0) / side;
        int64_t bottom = std::min(divide_up(part.top + part.height, tall) + margin, plane.full_height);
        int64_t right = std::min(divide_up(part.left + part.width, wide) + margin, plane.full_width);
        channel.bottom = divide_up(bottom, side);
        channel.right = divide_up(right, side);
        plane.top = channel.top * side;
        plane.left = channel.left * side;
        plane.height = std::min(channel.bottom * side, plane.full_height) - plane.top;
        plane.width = std::min(channel.right * side, plane.full_width) - plane.left;
        plane.step = channel.step = (channel.right - channel.left) * side;
        // A block takes two bits or more: no memory for a photo that cannot be there
        blocks += (channel.right - channel.left) * (channel.bottom - channel.top);
        if (blocks / 4 > static_cast<int64_t>(size)) return false;
        size_t bytes = static_cast<size_t>(plane.step * (channel.bottom - channel.top) * side);
        plane.pixels = channel.pixels = reserve(scratch.bytes[i], bytes);
        work.top = std::min(work.top, channel.top / channel.v);
        work.left = std::min(work.left, channel.left / channel.h);
        work.bottom = std::max(work.bottom, divide_up(channel.bottom, channel.v));
        work.right = std::max(work.right, divide_up(channel.right, channel.h));
    }
    return true;
}

// Fill a block that has no coefficients but the first one.
ALWAYS_INLINE void fill_block(const Channel& channel, uint32_t dc, uint8_t* to) {
    int flat = static_cast<int16_t>(dc * static_cast<uint16_t>(channel.quant[0]));
    uint64_t all = clamp8(((flat + 4) >> 3) + 128) * 0x0101010101010101u;
    const int side = channel.side;
    const int64_t step = channel.step;
    for (int i = 0; i < side; ++i, to += step) {
        if (side == 8) std::memcpy(to, &all, 8);
        if (side == 4) std::memcpy(to, &all, 4);
        if (side == 2) std::memcpy(to, &all, 2);
        if (side == 1) *to = static_cast<uint8_t>(all);
    }
}

// Whether any column of coefficients adds up to so much that decoders differ in what they make of it: where they add
// in 16 bits. It takes damage; a photo's columns stay below half of that.
FOR_EACH_CPU bool has_absurd(const int16_t* blocks, const Pending* jobs, int count) {
    constexpr int MOST = 32767 / 2 / 4 * 10 / 14;  // times 4 and less than 1.4 after a pass; two of them make a sum
    int most = 0;
    for (int i = 0; i < count; ++i) {
        int sums[16] = {};
        for (int k = 0; k < 64; k += 16)
            for (int j = 0; j < 16; ++j)
                sums[j] += std::abs(blocks[64 * i + k + j] * static_cast<uint16_t>(jobs[i].quant[k + j]));
        for (int j = 0; j < 16; j += 2) most = std::max(most, sums[j] + sums[j + 1]);
    }
    return most > MOST;
}

// The samples of the blocks that wait.
void finish_blocks(Work& work) {
    Tables& tables = *work.tables;
    if (work.strict) work.absurd |= has_absurd(tables.blocks, tables.pending, work.waiting);
    inverse(tables.blocks, tables.pending, work.waiting);
    work.waiting = 0;
}

// The lines of a row of MCUs; how many there are.
int set_lines(Work& work, int64_t row, Line* lines) {
    int count = 0;
    for (int i = 0; i < work.count; ++i) {
        Channel& channel = work.channels[i];
        for (int y = 0; y < channel.v; ++y) {
            int64_t at = row * channel.v + y;
            if (at >= channel.top && at < channel.bottom) {
                uint8_t* to = channel.pixels + (at - channel.top) * channel.step * channel.side;
                lines[count++] = {&channel, channel.left, channel.right, to};
            } else {
                lines[count++] = {&channel, 0, 0, nullptr};
            }
        }
    }
    return count;
}

// Decode the MCUs [first, last] of the segment, which begins with `first`.
FOR_EACH_CPU int decode_segment(Work& work, int64_t first, int64_t last) {
    Tables& tables = *work.tables;
    int64_t row = first / work.columns, column = first % work.columns;
    int16_t nowhere[64];
    Line lines[4];  // of luma there are two at most
    const Line* end_of_lines = lines + set_lines(work, row, lines);
    for (int i = 0; i < work.count; ++i) work.channels[i].dc = 0;
    Bits bits;
    for (int64_t mcu = first; mcu <= last; ++mcu) {
        if (bits.next >= work.segment.limit) {
            Bits copy = bits;  // so that `bits` can stay in registers
            if (!work.segment.more(copy)) return DAMAGED;
            bits = copy;
        }
        bool damaged = false;
        for (const Line* line = lines; line < end_of_lines; ++line) {
            Channel& channel = *line->channel;
            int64_t x = column * channel.h;
            for (const int64_t end_of_mcu = x + channel.h; x < end_of_mcu; ++x) {
                bits.fill();
                uint32_t dc = channel.dc += static_cast<uint32_t>(channel.dc_table->decode(bits, damaged));
                const bool wanted = x >= line->left && x < line->right;
                uint64_t found;
                if (wanted && channel.side > 1) {
                    int16_t* block = tables.blocks + 64 * work.waiting;
                    found = channel.ac_table->decode(bits, block);
                    if (found) {
                        block[0] = static_cast<int16_t>(dc);
                        uint8_t* to = line->to + (x - line->left) * channel.side;
                        tables.pending[work.waiting] = {channel.quant, to, channel.step, channel.side};
                        if (++work.waiting == BATCH) finish_blocks(work);
                    }
                } else if (channel.ac_table->has_skips) {
                    found = channel.ac_table->skip(bits);
                } else {
                    found = channel.ac_table->decode(bits, nowhere);
                }
                damaged |= found > 63;
                if (wanted && (!found || channel.side == 1))
                    fill_block(channel, dc, line->to + (x - line->left) * channel.side);
            }
        }
        if (damaged) return DAMAGED;
        if (++column == work.columns && mcu < last) {
            column = 0;
            set_lines(work, ++row, lines);
        }
    }
    return work.segment.used_too_much(bits) ? DAMAGED : GOOD;
}

// The first wanted MCU at or after one.
int64_t next_wanted(const Work& work, int64_t mcu) {
    int64_t row = mcu / work.columns, column = mcu % work.columns;
    if (row < work.top) return work.top * work.columns + work.left;
    if (column < work.left) return row * work.columns + work.left;
    return column < work.right ? mcu : (row + 1) * work.columns + work.left;
}

// The last wanted MCU at or before one; there is one.
int64_t last_wanted(const Work& work, int64_t mcu) {
    int64_t row = mcu / work.columns, column = mcu % work.columns;
    if (column < work.left) return (row - 1) * work.columns + work.right - 1;
    return row * work.columns + std::min(column, work.right - 1);
}

// Decode the segments that have wanted MCUs, each as far as it has them. The others are passed over.
int decode_scan(Work& work, const uint8_t* at, const uint8_t* end) {
    const int64_t last = (work.bottom - 1) * work.columns + work.right - 1;
    int64_t here = 0;  // the segment in which `at` is
    for (int64_t mcu = next_wanted(work, 0); mcu <= last;) {
        const int64_t segment = mcu / work.interval, first = segment * work.interval;
        for (; here < segment; ++here) {
            at = find_marker(at, end);
            if (end - at < 2 || at[1] != 0xd0 + here % 8) return DAMAGED;
            at += 2;
        }
        const int64_t stop = last_wanted(work, std::min(first + work.interval - 1, last));
        work.segment.start(at, end, work.tables->segment);
        if (decode_segment(work, first, stop) != GOOD) return DAMAGED;
        at = work.segment.raw;
        mcu = next_wanted(work, stop + 1);
    }
    finish_blocks(work);
    if (!work.strict) return GOOD;
    at = find_marker(at, end);
    return work.absurd || end - at < 2 || at[1] != 0xd9 ? DAMAGED : GOOD;  // the end marker must follow
}

int decode_part(const Payload& payload, Rect part, int shrink, bool strict, Scratch& scratch, Picture& picture) {
    const int64_t height = payload.height, width = payload.width;
    Header header;
    int code = read_header(payload.data, payload.size, height, width, header);
    if (code != GOOD) return code;
    if (height < 1 || width < 1) return DAMAGED;
    if (!header.baseline) {
        // Huffman codes need a bit or more for each block: no memory for a photo that cannot be there
        if (!header.arithmetic && height * width / 64 / 8 > static_cast<int64_t>(payload.size)) return DAMAGED;
        return DECODE_WHOLE;
    }
    if (!scratch.tables) scratch.tables = {new Tables(), [](void* tables) { delete static_cast<Tables*>(tables); }};
    Tables& tables = *static_cast<Tables*>(scratch.tables.get());
    int64_t bottom = std::min(std::max<int64_t>(part.top + part.height, 1), height);
    int64_t right = std::min(std::max<int64_t>(part.left + part.width, 1), width);
    part.top = std::max<int64_t>(std::min(part.top, bottom - 1), 0);
    part.left = std::max<int64_t>(std::min(part.left, right - 1), 0);
    part.height = bottom - part.top;
    part.width = right - part.left;
    Work work = {};
    work.count = header.components;
    work.tables = &tables;
    work.strict = strict;
    if (!set_tables(header, work) ||
        !plan(header, payload.size, part, std::min(std::max(shrink, 0), 3), work, scratch, picture))
        return DAMAGED;
    code = decode_scan(work, header.entropy, payload.data + payload.size);
    if (code != GOOD) std::memset(tables.blocks, 0, sizeof tables.blocks);
    return code;
}

int decode(const Payload& payload, Rect part, int shrink, Scratch& scratch, Picture& picture) {
    try {
        return decode_part(payload, part, shrink, false, scratch, picture);
    } catch (const std::bad_alloc&) {
        return DAMAGED;
    }
}

const Register jpeg(0, decode);

}  // namespace

int decode_jpeg_strictly(const Payload& payload, Scratch& scratch, Picture& picture) {
    return decode_part(payload, {0, 0, payload.height, payload.width}, 0, true, scratch, picture);
}

}  // namespace kernels
