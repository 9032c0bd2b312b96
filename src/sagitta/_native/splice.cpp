// Restart markers: which bytes hold which rows, and a small valid JPEG of just the rows that are needed.
#include <cstring>

#include "core.h"

namespace sagitta {

namespace {

unsigned word(const uint8_t* at) { return unsigned(at[0]) << 8 | at[1]; }

struct Frame {
    size_t height_at = 0;
    int width = 0, height = 0, components = 0, across = 1, down = 1;  // across, down: largest sampling factors
};

bool read_frame(const uint8_t* segment, size_t length, size_t at, Frame& frame) {
    if (frame.height_at || length < 8 || length < 8 + size_t(segment[7]) * 3) return false;
    frame = {at + 3, int(word(segment + 5)), int(word(segment + 3)), segment[7]};
    for (int i = 0; i < frame.components; i++) {
        const int across = segment[9 + 3 * i] >> 4, down = segment[9 + 3 * i] & 15;
        if (across < 1 || across > 4 || down < 1 || down > 4) return false;
        if (across > frame.across) frame.across = across;
        if (down > frame.down) frame.down = down;
    }
    // A lone component is scanned block by block, whatever its sampling factors say.
    return frame.height > 0 && frame.width > 0 && (frame.components > 1 || (frame.across == 1 && frame.down == 1));
}

// Walks the segments up to the first scan's data. False unless it is sequential Huffman with one interleaved scan.
bool read_segments(Bytes file, Frame& frame, int& interval, size_t& scan_at) {
    for (size_t at = 2; at + 4 <= file.size;) {
        const uint8_t* head = file.data + at;
        if (head[0] != 0xFF) return false;
        const uint8_t marker = head[1];
        if (marker == 0xFF) {
            at++;
            continue;
        }
        const size_t length = word(head + 2);
        if (marker < 0xC0 || (marker >= 0xD0 && marker <= 0xD9) || length < 2 || at + 2 + length > file.size) {
            return false;
        }
        const uint8_t* segment = head + 2;
        if (marker == 0xC0 || marker == 0xC1) {
            if (!read_frame(segment, length, at + 2, frame)) return false;
        } else if (marker >= 0xC2 && marker <= 0xCF && marker != 0xC4) {
            return false;
        } else if (marker == 0xDD && length == 4) {
            interval = int(word(segment + 2));
        } else if (marker == 0xDA) {
            scan_at = at + 2 + length;
            return frame.height_at && length > 2 && segment[2] == frame.components;
        }
        at += 2 + length;
    }
    return false;
}

}  // namespace

bool find_intervals(Bytes file, Intervals& intervals) {
    Frame frame;
    int interval = 0;
    if (!read_segments(file, frame, interval, intervals.scan_at)) return false;
    const int across = 8 * frame.across, down = 8 * frame.down;
    const int per_row = (frame.width + across - 1) / across;
    if (interval == 0 || interval % per_row) return false;
    intervals.height_at = frame.height_at;
    intervals.rows = interval / per_row * down;
    const size_t total = size_t((frame.height + intervals.rows - 1) / intervals.rows);
    intervals.starts.assign(1, intervals.scan_at);
    const uint8_t* end = file.data + file.size;
    const uint8_t* at = file.data + intervals.scan_at;
    while ((at = static_cast<const uint8_t*>(std::memchr(at, 0xFF, size_t(end - at)))) && at + 1 < end) {
        const uint8_t marker = at[1];
        at += 2;
        if (marker == 0) continue;
        const size_t found = intervals.starts.size();
        intervals.starts.push_back(size_t(at - file.data));
        if (marker == 0xD9) return found == total;
        if (marker != 0xD0 + (found - 1) % 8 || found == total) return false;
    }
    return false;
}

void splice(Bytes file, const Intervals& intervals, int first, int end, int height, std::vector<uint8_t>& out) {
    const uint8_t* from = file.data + intervals.starts[size_t(first)];
    const uint8_t* to = file.data + intervals.starts[size_t(end)];
    out.assign(file.data, file.data + intervals.scan_at);
    out[intervals.height_at] = uint8_t(height >> 8);
    out[intervals.height_at + 1] = uint8_t(height);
    out.insert(out.end(), from, to);
    const size_t shift = intervals.scan_at - intervals.starts[size_t(first)];  // modulo 2^64, as intended
    for (int i = first + 1; i < end; i++) {
        out[intervals.starts[size_t(i)] + shift - 1] = uint8_t(0xD0 + (i - first - 1) % 8);
    }
    out.back() = 0xD9;  // each interval ends with a marker: the last becomes the end of the image
}

}  // namespace sagitta
