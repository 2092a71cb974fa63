// What is before the entropy-coded data of a JPEG. Only jpeg.cpp includes this.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels.h"

namespace kernels {
namespace {

// A channel, as the file describes it.
struct Component {
    int id, h, v;  // h x v blocks in an MCU
    int quant_number, dc_number, ac_number;
};

struct Header {
    int64_t height = 0, width = 0;
    int components = 0;  // of them, the first ones of a baseline JPEG:
    Component component[3] = {};
    bool baseline = false;         // of a kind that is decoded here
    bool arithmetic = false;       // not Huffman codes
    const uint8_t* quants[4] = {};  // 64 numbers of one or two bytes
    bool wide_quants[4] = {};
    const uint8_t *dc[4] = {}, *ac[4] = {};  // 16 counts of codes, then their symbols
    int64_t interval = 0;              // MCUs between restart markers; 0: there are none
    bool jfif = false;
    int adobe = -1;                    // Adobe's number for the kind of colour
    const uint8_t* entropy = nullptr;  // what follows the header of the scan
};

inline int number16(const uint8_t* at) { return at[0] << 8 | at[1]; }

inline int read_quants(const uint8_t* at, const uint8_t* end, Header& header) {
    while (at < end) {
        int number = *at & 15, wide = *at >> 4;
        if (number > 3 || wide > 1 || end - at < 65 + 64 * wide) return DAMAGED;
        header.quants[number] = at + 1;
        header.wide_quants[number] = wide;
        at += 65 + 64 * wide;
    }
    return GOOD;
}

inline int read_codes(const uint8_t* at, const uint8_t* end, Header& header) {
    while (at < end) {
        if (end - at < 17 || (*at & 15) > 3 || *at >> 4 > 1) return DAMAGED;
        int symbols = 0;
        for (int i = 1; i <= 16; ++i) symbols += at[i];
        if (symbols > 256 || end - at < 17 + symbols) return DAMAGED;
        (*at >> 4 ? header.ac : header.dc)[*at & 15] = at + 1;
        at += 17 + symbols;
    }
    return GOOD;
}

inline int read_frame(int marker, const uint8_t* at, const uint8_t* end, Header& header) {
    if (header.components || end - at < 6) return DAMAGED;
    header.height = number16(at + 1);
    header.width = number16(at + 3);
    header.components = at[5];
    header.baseline = (marker == 0xc0 || marker == 0xc1) && at[0] == 8 && (at[5] == 1 || at[5] == 3);
    header.arithmetic = marker >= 0xc9;
    if (header.components == 0 || end - at != 6 + 3 * header.components) return DAMAGED;
    if (!header.baseline) return GOOD;
    for (int i = 0; i < header.components; ++i) {
        Component& component = header.component[i];
        component.id = at[6 + 3 * i];
        component.h = at[7 + 3 * i] >> 4;
        component.v = at[7 + 3 * i] & 15;
        component.quant_number = at[8 + 3 * i];
        if (component.h < 1 || component.h > 4 || component.v < 1 || component.v > 4 || component.quant_number > 3)
            return DAMAGED;
    }
    Component* all = header.component;
    if (header.components == 1) {
        all[0].h = all[0].v = 1;  // the blocks of a single channel are not interleaved
    } else {
        bool usual = (all[0].h <= 2 && all[0].v <= 2) || (all[0].h == 4 && all[0].v == 1);
        for (int i = 1; i < 3; ++i) usual = usual && all[i].h == 1 && all[i].v == 1;
        header.baseline = usual;
    }
    return GOOD;
}

inline int read_scan(const uint8_t* at, const uint8_t* end, Header& header) {
    if (!header.components || end - at < 1 || end - at != 4 + 2 * at[0]) return DAMAGED;
    header.entropy = end;
    const uint8_t* last = end - 3;
    if (at[0] != header.components || last[0] != 0 || last[1] != 63 || last[2] != 0) header.baseline = false;
    // As libjpeg finds out whether the channels are YCbCr
    Component* all = header.component;
    if (header.components == 3 && header.baseline && !header.jfif) {
        if (header.adobe >= 0 ? header.adobe != 1 : all[0].id == 'R' && all[1].id == 'G' && all[2].id == 'B')
            header.baseline = false;
    }
    for (int i = 0; header.baseline && i < header.components; ++i) {
        if (at[1 + 2 * i] != all[i].id) header.baseline = false;
        all[i].dc_number = at[2 + 2 * i] >> 4;
        all[i].ac_number = at[2 + 2 * i] & 15;
        if (all[i].dc_number > 3 || all[i].ac_number > 3) return DAMAGED;
    }
    return GOOD;
}

// All that is before the entropy-coded data. What is not a baseline JPEG is not looked at closely.
inline int read_header(const uint8_t* data, size_t size, int64_t height, int64_t width, Header& header) {
    if (size < 3 || data[0] != 0xff || data[1] != 0xd8 || data[2] != 0xff) return NO_JPEG;
    const uint8_t *at = data + 2, *end = data + size;
    while (!header.entropy) {
        if (end - at < 4 || *at != 0xff) return DAMAGED;
        int marker = at[1];
        if (marker == 0xff) {
            ++at;  // a fill byte
            continue;
        }
        if (marker < 0xc0 || (marker >= 0xd0 && marker <= 0xd9)) return DAMAGED;  // nothing that belongs here
        int length = number16(at + 2);
        if (length < 2 || length > end - at - 2) return DAMAGED;
        const uint8_t *from = at + 4, *to = at + 2 + length;
        at = to;
        int code = GOOD;
        if (marker == 0xdb) {
            code = read_quants(from, to, header);
        } else if (marker == 0xc4) {
            code = read_codes(from, to, header);
        } else if (marker == 0xdd) {
            if (length != 4) return DAMAGED;
            header.interval = number16(from);
        } else if (marker == 0xda) {
            code = read_scan(from, to, header);
        } else if (marker >= 0xc0 && marker <= 0xcf && marker != 0xc8 && marker != 0xcc) {
            code = read_frame(marker, from, to, header);
            if (code == GOOD && (header.height != height || header.width != width)) return OTHER_SIZE;
        } else if (marker == 0xe0) {
            header.jfif = header.jfif || (length >= 16 && std::memcmp(from, "JFIF", 5) == 0);
        } else if (marker == 0xee && length >= 14 && std::memcmp(from, "Adobe", 5) == 0) {
            header.adobe = from[11];
        }
        if (code != GOOD) return code;
    }
    return GOOD;
}

}  // namespace
}  // namespace kernels
