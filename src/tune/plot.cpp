#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "gqa/tune.h"

namespace gqa {
namespace {

constexpr double width = 860, height = 520;
constexpr double left = 70, right = 30, top = 50, bottom = 60;

constexpr const char* style =
    "<style>\n"
    "svg{background:#fff;font:12px sans-serif}text{fill:#222}.axis{stroke:#888}"
    ".grid{stroke:#ddd}.dot{fill:#888}.best{fill:#0b62c4}.front{stroke:#0b62c4;fill:none;"
    "stroke-width:2}.quiet{fill:#666}\n"
    "@media(prefers-color-scheme:dark){svg{background:#16181c}text{fill:#e4e4e4}.grid{stroke:#333}"
    ".dot{fill:#999}.best{fill:#6cb2ff}.front{stroke:#6cb2ff}.quiet{fill:#aaa}}\n"
    "</style>\n";

std::string escaped(const std::string& text) {
  std::string result;
  for (const char c : text) {
    if (c == '&')
      result += "&amp;";
    else if (c == '<')
      result += "&lt;";
    else if (c == '>')
      result += "&gt;";
    else if (static_cast<unsigned char>(c) < 0x20)
      result += ' ';  // XML has no control characters
    else
      result += c;
  }
  return result;
}

struct Box {
  double x, y, w, h;
  bool overlaps(const Box& o) const {
    return x < o.x + o.w && o.x < x + w && y < o.y + o.h && o.y < y + h;
  }
};

class Plot {
 public:
  explicit Plot(const TuneResult& result) : points_(result.points) {
    low_ = high_ = points_[0].ppl;
    for (const TunePoint& p : points_) {
      most_bytes_ = std::max(most_bytes_, static_cast<double>(p.kv_bytes_per_token));
      low_ = std::min(low_, p.ppl);
      high_ = std::max(high_, p.ppl);
    }
    low_ *= 0.97;
    high_ *= 1.05;
  }

  std::string draw(const std::string& title) {
    text_ = fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" "
        "width=\"{0}\" height=\"{1}\">\n{2}",
        width, height, style);
    label(left, 26, "start", "font-size=\"15\"", title);
    draw_axes();
    draw_front();
    for (const TunePoint& p : points_) taken_.push_back({x(p) - 5, y(p.ppl) - 5, 10, 10});
    // Labels of the front come first: others stay out where there is no room.
    for (const bool front : {true, false}) {
      for (const TunePoint& p : points_) {
        if (p.on_front == front) draw_point(p);
      }
    }
    return text_ + "</svg>\n";
  }

 private:
  double x(double bytes) const {
    return left + bytes / (most_bytes_ * 1.05) * (width - left - right);
  }
  double x(const TunePoint& p) const { return x(static_cast<double>(p.kv_bytes_per_token)); }
  double y(double ppl) const {
    const double share = std::log(ppl / low_) / std::log(high_ / low_);
    return height - bottom - share * (height - top - bottom);
  }

  void label(double at_x, double at_y, const char* anchor, const char* more,
             const std::string& what) {
    text_ += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\" {}>{}</text>\n", at_x,
                         at_y, anchor, more, escaped(what));
  }

  void line(const char* kind, double x1, double y1, double x2, double y2) {
    text_ += fmt::format(
        "<line class=\"{}\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\"/>\n", kind, x1,
        y1, x2, y2);
  }

  void draw_axes() {
    for (int i = 0; i <= 4; ++i) {
      const double bytes = most_bytes_ * i / 4;
      line("grid", x(bytes), top, x(bytes), height - bottom);
      label(x(bytes), height - bottom + 18, "middle", "", fmt::format("{:.0f}", bytes));
      const double ppl = low_ * std::pow(high_ / low_, i / 4.0);
      line("grid", left, y(ppl), width - right, y(ppl));
      label(left - 8, y(ppl) + 4, "end", "", fmt::format("{:.3g}", ppl));
    }
    line("axis", left, height - bottom, width - right, height - bottom);
    line("axis", left, top, left, height - bottom);
    label((left + width - right) / 2, height - 16, "middle", "", "KV cache, bytes per token");
    label(16, (top + height - bottom) / 2, "middle", "transform=\"rotate(-90 16 255)\"",
          "perplexity (logarithmic)");
  }

  void draw_front() {
    std::vector<const TunePoint*> front;
    for (const TunePoint& p : points_) {
      if (p.on_front) front.push_back(&p);
    }
    std::ranges::sort(front, {}, &TunePoint::kv_bytes_per_token);
    text_ += "<polyline class=\"front\" points=\"";
    for (const TunePoint* p : front) text_ += fmt::format("{:.1f},{:.1f} ", x(*p), y(p->ppl));
    text_ += "\"/>\n";
  }

  void draw_point(const TunePoint& p) {
    const double px = x(p);
    const double py = y(p.ppl);
    text_ += fmt::format(
        "<circle class=\"{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{}\"><title>{}: {} bytes, perplexity "
        "{:.4f}</title></circle>\n",
        p.on_front ? "best" : "dot", px, py, p.on_front ? 5 : 3.5, escaped(p.name),
        p.kv_bytes_per_token, p.ppl);
    const double w = 6.4 * static_cast<double>(p.name.size());
    const std::array<Box, 6> places = {{{px + 8, py - 14, w, 13},
                                        {px - 8 - w, py + 3, w, 13},
                                        {px + 8, py + 3, w, 13},
                                        {px - 8 - w, py - 14, w, 13},
                                        {px - w / 2, py - 22, w, 13},
                                        {px - w / 2, py + 9, w, 13}}};
    for (const Box& place : places) {
      const bool inside = place.x > left && place.x + w < width && place.y > top;
      const bool free =
          std::ranges::none_of(taken_, [&](const Box& b) { return b.overlaps(place); });
      if (!inside || !free) continue;
      taken_.push_back(place);
      const char* more = p.on_front ? "" : "class=\"quiet\"";
      const bool to_the_left = place.x + w < px;  // letters' widths are estimates
      label(to_the_left ? px - 8 : place.x, place.y + 11, to_the_left ? "end" : "start", more,
            p.name);
      return;
    }
  }

  const std::vector<TunePoint>& points_;
  double most_bytes_ = 1;
  double low_ = 0, high_ = 0;
  std::vector<Box> taken_;
  std::string text_;
};

}  // namespace

std::string tune_svg(const std::string& title, const TuneResult& result) {
  return Plot(result).draw(title);
}

}  // namespace gqa
