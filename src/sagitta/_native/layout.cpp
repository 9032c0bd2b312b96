// Where the parts of a JPEG lie, and a small valid JPEG of just the rows that are needed.
#include <cstring>

#include "core.h"

namespace sagitta {

namespace {

unsigned word(const uint8_t* at) { return unsigned(at[0]) << 8 | at[1]; }

struct Frame {
    size_t height_at = 0;
    int width = 0, height = 0, components = 0, across = 1, down = 1;  // across, down: blocks in an MCU
    bool sequential = false;
    int interval = 0;  // MCUs from one restart marker to the next
    int columns() const { return (width + 8 * across - 1) / (8 * across); }
    int rows() const { return (height + 8 * down - 1) / (8 * down); }
};

bool read_frame(const uint8_t* segment, size_t length, size_t at, Frame& frame) {
    if (frame.height_at || length < 8 || length < 8 + size_t(segment[7]) * 3) return false;
    frame.height_at = at + 3;
    frame.height = int(word(segment + 3));
    frame.width = int(word(segment + 5));
    frame.components = segment[7];
    for (int i = 0; i < frame.components && frame.components > 1; i++) {  // a lone component: one block, always
        const int across = segment[9 + 3 * i] >> 4, down = segment[9 + 3 * i] & 15;
        if (across < 1 || across > 4 || down < 1 || down > 4) return false;
        if (across > frame.across) frame.across = across;
        if (down > frame.down) frame.down = down;
    }
    return frame.height > 0 && frame.width > 0;
}

// Walks the segments up to the first scan's data; returns its offset, or 0 where this is no Huffman-coded JPEG.
size_t read_segments(Bytes file, Frame& frame) {
    for (size_t at = 2; at + 4 <= file.size;) {
        const uint8_t* head = file.data + at;
        const uint8_t marker = head[1];
        if (head[0] == 0xFF && marker == 0xFF) {
            at++;
            continue;
        }
        const size_t length = word(head + 2);
        if (head[0] != 0xFF || marker < 0xC0 || (marker >= 0xD0 && marker <= 0xD9) || length < 2 ||
            at + 2 + length > file.size) {
            return 0;
        }
        const uint8_t* segment = head + 2;
        if (marker >= 0xC0 && marker <= 0xC2) {
            if (!read_frame(segment, length, at + 2, frame)) return 0;
            frame.sequential = marker != 0xC2;
        } else if (marker >= 0xC3 && marker <= 0xCF && marker != 0xC4) {
            return 0;
        } else if (marker == 0xDD && length == 4) {
            frame.interval = int(word(segment + 2));
        } else if (marker == 0xDA && length > 2) {
            frame.sequential = frame.sequential && segment[2] == frame.components;
            return frame.height_at ? at + 2 + length : 0;
        }
        at += 2 + length;
    }
    return 0;
}

// In several scans: everything is read anyway, so it is enough that there is an end.
bool has_end(Bytes file, size_t scan_at) {
    for (size_t at = file.size - 2; at >= scan_at; at--) {
        if (file.data[at] == 0xFF && file.data[at + 1] == 0xD9) return true;
    }
    return false;
}

// Collects the restart markers up to EOI; false unless they are those that there should be, and no others.
bool read_markers(Bytes file, const Frame& frame, std::vector<size_t>& starts) {
    const int64_t units = int64_t(frame.columns()) * frame.rows();
    const size_t total = frame.interval ? size_t((units + frame.interval - 1) / frame.interval) : 1;
    const uint8_t* end = file.data + file.size;
    const uint8_t* at = file.data + starts[0];
    while ((at = static_cast<const uint8_t*>(std::memchr(at, 0xFF, size_t(end - at)))) && at + 1 < end) {
        const uint8_t marker = at[1];
        at += 2;
        if (marker == 0) continue;
        const size_t found = starts.size();
        starts.push_back(size_t(at - file.data));
        if (marker == 0xD9) return found == total;
        if (found == total || marker != 0xD0 + (found - 1) % 8) return false;
    }
    return false;
}

}  // namespace

bool read_layout(Bytes file, Layout& layout) {
    if (file.size < 4 || file.data[0] != 0xFF || file.data[1] != 0xD8 || file.data[2] != 0xFF) return false;
    Frame frame;
    const size_t scan_at = read_segments(file, frame);
    if (!scan_at) return false;
    layout.height_at = frame.height_at;
    layout.interval_rows = 0;
    layout.starts.assign(1, scan_at);
    if (!frame.sequential) return has_end(file, scan_at);
    const int columns = frame.columns();
    if (frame.interval % columns == 0) layout.interval_rows = frame.interval / columns * 8 * frame.down;
    return read_markers(file, frame, layout.starts);
}

void splice(Bytes file, const Layout& layout, int first, int end, int height, std::vector<uint8_t>& out) {
    const auto& starts = layout.starts;
    out.assign(file.data, file.data + starts[0]);
    out[layout.height_at] = uint8_t(height >> 8);
    out[layout.height_at + 1] = uint8_t(height);
    out.insert(out.end(), file.data + starts[size_t(first)], file.data + starts[size_t(end)]);
    for (int i = first + 1; i < end; i++) {
        const size_t at = starts[size_t(i)] - starts[size_t(first)] + starts[0];
        out[at - 1] = uint8_t(0xD0 + (i - first - 1) % 8);
    }
    out.back() = 0xD9;  // each interval ends with a marker: the last becomes the end of the image
}

}  // namespace sagitta
