// Where the parts of a JPEG lie, and a small valid JPEG of just the tiles that are needed.
#include <algorithm>
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
    layout = {frame.height_at, frame.width, frame.height, 0, 0, 1, {scan_at}};
    if (!frame.sequential) return has_end(file, scan_at);
    const int columns = frame.columns(), interval = frame.interval;
    if (interval && interval % columns == 0) {
        layout.tile_width = frame.width;
        layout.tile_height = interval / columns * 8 * frame.down;
    } else if (interval && columns % interval == 0) {
        layout.tile_width = interval * 8 * frame.across;
        layout.tile_height = 8 * frame.down;
        layout.tiles_across = columns / interval;
    }
    return read_markers(file, frame, layout.starts);
}

Box splice(Bytes file, const Layout& layout, Box box, std::vector<uint8_t>& out) {
    const auto& starts = layout.starts;
    const int across = layout.tiles_across, down = int(starts.size() - 1) / across;
    const int left = box.left / layout.tile_width, top = box.top / layout.tile_height;
    const int right = std::min(across, (box.right - 1) / layout.tile_width + 1);
    const int bottom = std::min(down, (box.bottom - 1) / layout.tile_height + 1);
    const Box held{left * layout.tile_width, top * layout.tile_height,
                   std::min(layout.width, right * layout.tile_width),
                   std::min(layout.height, bottom * layout.tile_height)};
    out.assign(file.data, file.data + starts[0]);
    uint8_t* size = out.data() + layout.height_at;
    size[0] = uint8_t(held.height() >> 8);
    size[1] = uint8_t(held.height());
    size[2] = uint8_t(held.width() >> 8);
    size[3] = uint8_t(held.width());
    int number = 0;
    for (int y = top; y < bottom; y++) {
        const size_t* row = &starts[size_t(y) * size_t(across)];
        const size_t shift = out.size() - row[left];
        out.insert(out.end(), file.data + row[left], file.data + row[right]);
        for (int x = left + 1; x <= right; x++) out[row[x] + shift - 1] = uint8_t(0xD0 + number++ % 8);
    }
    out.back() = 0xD9;  // each tile ends with a marker: the last becomes the end of the image
    return held;
}

}  // namespace sagitta
