// Sweeps: the front, what is kept on disk, the picture.
#include "gqa/tune.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "io/json_value.h"
#include "support/expect_error.h"
#include "support/files.h"
#include "support/temp_dir.h"
#include "tune/state.h"

namespace gqa {
namespace {

using test::expect_error;
using test::get_file;
using test::put_file;
using test::TempDir;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

TunePoint point(int64_t bytes, double ppl, std::string name = "x") {
  TunePoint p;
  p.name = std::move(name);
  p.layer_kv_heads = {1};
  p.kv_bytes_per_token = bytes;
  p.ppl = ppl;
  return p;
}

std::vector<bool> front_of(std::vector<TunePoint> points) {
  mark_front(points);
  std::vector<bool> front;
  for (const TunePoint& p : points) front.push_back(p.on_front);
  return front;
}

TEST(Front, IsWhatNothingBeats) {
  EXPECT_THAT(front_of({point(8, 5), point(4, 6), point(4, 7), point(2, 6), point(1, 9)}),
              ElementsAre(true, false, false, true, true));
  EXPECT_THAT(front_of({point(8, 5), point(4, 5)}), ElementsAre(false, true));
  EXPECT_THAT(front_of({point(4, 5), point(4, 5)}), ElementsAre(true, true));
}

/// Sorted by bytes, the front's perplexities fall, and every other point has one of them below.
TEST(Front, FallsFromPointToPoint) {
  std::mt19937 random(3);
  for (int round = 0; round < 100; ++round) {
    std::vector<TunePoint> points;
    for (int i = 0; i < 12; ++i) {
      points.push_back(point(1 + int64_t(random() % 6), 1.0 + double(random() % 6)));
    }
    mark_front(points);
    for (const TunePoint& p : points) {
      bool covered = false;
      for (const TunePoint& q : points) {
        const bool below = q.kv_bytes_per_token <= p.kv_bytes_per_token && q.ppl <= p.ppl;
        const bool same = q.kv_bytes_per_token == p.kv_bytes_per_token && q.ppl == p.ppl;
        EXPECT_TRUE(!p.on_front || !below || same);
        covered = covered || (below && q.on_front);
      }
      EXPECT_TRUE(covered);
    }
  }
}

TEST(TuneState, FindsWhatWasMeasuredOfTheSame) {
  const TempDir dir;
  const auto file = dir / "tune.jsonl";
  const Json one = {{"kv_heads", 4}, {"text", "a"}};
  const Json other = {{"kv_heads", 4}, {"text", "b"}};
  TunePoint p = point(3072, 0.1 + 0.2);
  p.kl = 1.0 / 3;
  {
    TuneState state(file);
    EXPECT_FALSE(state.find(one));
    state.put(other, point(1, 1));
    state.put(one, point(2, 2));
    state.put(one, p);  // the latest counts
  }
  const TuneState again(file);
  const auto found = again.find(one);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->kv_bytes_per_token, 3072);
  EXPECT_EQ(found->ppl, p.ppl);
  EXPECT_EQ(found->kl, p.kl);
  EXPECT_EQ(again.find(other)->kv_bytes_per_token, 1);
  EXPECT_FALSE(again.find({{"kv_heads", 4}}));
  EXPECT_FALSE(std::filesystem::exists(dir / "tune.jsonl.new"));
}

TEST(TuneState, NamesALineThatIsNone) {
  const TempDir dir;
  const auto file = dir / "tune.jsonl";
  TuneState(file).put({{"a", 1}}, point(1, 1));
  const std::string sound = get_file(file);
  for (const std::string bad :
       {"{", "{}", "[]", "{\"of\":{},\"point\":{}}", "{\"of\":{},\"point\":{\"ppl\":\"x\"}}"}) {
    put_file(file, sound + bad + "\n");
    expect_error(ErrorKind::bad_data, {"tune.jsonl:2"}, [&] { TuneState state(file); });
  }
}

TEST(TunePicture, ShowsEveryPointAndNoMarkupOfNames) {
  TuneResult result;
  result.points = {point(6144, 5.5, "original"), point(3072, 6, "a<b&\x01"),
                   point(3072, 9, "worse")};
  mark_front(result.points);
  const std::string svg = tune_svg("A & B", result);
  EXPECT_THAT(svg, HasSubstr("A &amp; B"));
  EXPECT_THAT(svg, HasSubstr("a&lt;b&amp; : 3072 bytes, perplexity 6.0000"));
  EXPECT_THAT(svg, HasSubstr("prefers-color-scheme:dark"));
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  size_t best = 0;
  for (size_t at = 0; (at = svg.find("class=\"best\"", at)) != svg.npos; ++at) ++best;
  EXPECT_EQ(best, 2u);
}

}  // namespace
}  // namespace gqa
