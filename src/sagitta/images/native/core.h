// The native core: JPEG bytes and a job in, the pixels that Pillow would give out. Plain C interface in batch.cpp.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace sagitta {

struct Bytes {
    const uint8_t* data;
    size_t size;
};

struct Box {  // pixels; right and bottom are exclusive
    int left, top, right, bottom;
    int width() const { return right - left; }
    int height() const { return bottom - top; }
};

struct Pixels {  // interleaved samples, `stride` bytes from row to row
    const uint8_t* data;
    size_t stride;
    int width, height, channels;
};

enum class Filter : int { bilinear = 0, bicubic = 1 };

// One dimension of a resize: output i is the weighted sum of `taps` source samples from starts[i] on, counted
// from `first`. Weights are fixed point with 22 fractional bits; low and high are their signed 16-bit halves,
// weight = high * 65536 + low.
struct Axis {
    int first, end;  // the source samples that any output needs
    int taps;        // a multiple of AxisSpec.group, filled up with zero weights
    std::vector<int> starts;
    std::vector<int32_t> weights;
    std::vector<int16_t> low, high;
};

struct AxisSpec {
    int size;         // source samples
    double from, to;  // the part of the source that is resized
    int resized;      // outputs of the whole resize
    int window, count;  // the outputs that are wanted: [window, window + count)
    bool reversed;      // last output first
    int group;          // 4 for the pass across, 2 for the pass down: how many taps are taken at once
};

Axis make_axis(const AxisSpec& spec, Filter filter);

// Bytes behind the last row that a resize may read; it multiplies them by zero or drops them.
inline size_t slack(const Axis& across) { return size_t(across.taps) * 3 + 32; }

class Resizer {
  public:
    // Resizes `source`, which starts at (down.first, across.first), to (down.starts.size(), across.starts.size(),
    // channels) bytes at out. The order of the passes matters, since samples are rounded in between.
    void resize(const Pixels& source, const Axis& across, const Axis& down, bool down_first, int channels,
                uint8_t* out);

  private:
    std::vector<uint8_t> first_, second_;
};

// Where the parts of a JPEG lie. Restart intervals that divide the rows of MCUs evenly, or are made of whole rows, form
// a grid of tiles, each of which can be decoded without the others.
struct Layout {
    size_t height_at;                // offset of the height in the frame header; the width follows it
    int width, height;
    int tile_width, tile_height;     // pixels; 0 where there is no grid
    int tiles_across;
    std::vector<size_t> starts;      // offset of each tile, row by row; the last is the offset behind EOI
};

// Reads it. False unless every marker up to the end of the image is one that should be there: Pillow reads all of a
// file, and refuses one that is cut off or broken behind the rows that a crop needs.
bool read_layout(Bytes file, Layout& layout);

// Writes a JPEG of the tiles that `box` covers, and returns the pixels that it holds.
Box splice(Bytes file, const Layout& layout, Box box, std::vector<uint8_t>& out);

// Rewrites a JPEG with restart intervals that form a grid, coefficients unchanged. False where that cannot be proven
// for this file.
bool add_restart_markers(Bytes file, std::vector<uint8_t>& out);

}  // namespace sagitta
