#include "io/json_value.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>

#include "support/expect_error.h"
#include "support/files.h"
#include "support/temp_dir.h"

namespace gqa {
namespace {

using test::expect_error;
using test::TempDir;

const std::filesystem::path file = "x.json";

TEST(Json, KeepsTheOrderOfKeysAndEveryKindOfValue) {
  const std::string text =
      R"({"z":1,"a":[true,null,-2,18446744073709551615,0.5,"ä\n",{}],"m":{"b":{"c":[]},"a":2}})";
  EXPECT_EQ(parse_json(text, file).dump(), text);
  EXPECT_EQ(parse_json(" 3 ", file).dump(), "3");
}

TEST(Json, SaysWhereItIsNotJson) {
  expect_error(ErrorKind::bad_data, {"x.json", "line 2", "byte 7"},
               [] { parse_json("{\n\"a\":x}", file); });
  for (const char* bad : {"", "{", "[1,]", "{\"a\"}", "{} {}", "[NaN]", "[Infinity]", "[1e999]",
                          "[01]", "'a'", "[\"\\ud800\"]", "// c\n{}", "nul", "[\"a\nb\"]"}) {
    SCOPED_TRACE(bad);
    expect_error(ErrorKind::bad_data, {"x.json", "not valid JSON"}, [&] { parse_json(bad, file); });
  }
  expect_error(ErrorKind::bad_data, {"x.json", "UTF-8", "byte 2"},
               [] { parse_json("[\"\xff\"]", file); });
}

TEST(Json, RefusesAKeyGivenTwice) {
  expect_error(ErrorKind::bad_data, {"x.json", "`b` is given twice", "in `a[1].c`"},
               [] { parse_json(R"({"a":[0,{"c":{"b":1,"x":0,"b":1}}]})", file); });
  expect_error(ErrorKind::bad_data, {"x.json", "`k` is given twice"},
               [] { parse_json(R"({"k":1,"k":1})", file); });
  EXPECT_NO_THROW(parse_json(R"([{"k":1},{"k":{"k":1}}])", file));
}

TEST(Json, RefusesMoreThan64Levels) {
  const auto nested = [](size_t n) { return std::string(n, '[') + std::string(n, ']'); };
  EXPECT_NO_THROW(parse_json(nested(64), file));
  expect_error(ErrorKind::bad_data, {"x.json", "64"}, [&] { parse_json(nested(65), file); });
  expect_error(ErrorKind::bad_data, {"x.json", "64"},
               [&] { parse_json(std::string(1'000'000, '['), file); });
}

TEST(Json, LargeObjectsTakeLinearTime) {
  std::string text = "{";
  for (int i = 0; i < 128'000; ++i) text += fmt::format("{}\"token{}\":{}", i ? "," : "", i, i);
  text += "}";
  const auto start = std::chrono::steady_clock::now();
  const Json json = parse_json(text, file);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  EXPECT_EQ(json.size(), 128'000u);
  EXPECT_EQ(json.rbegin().key(), "token127999");
  EXPECT_LT(seconds.count(), 3.0);  // a quadratic one takes ten and more
}

TEST(Json, ReadsFiles) {
  const TempDir dir;
  test::put_file(dir / "a.json", "{\"a\":1}");
  EXPECT_EQ(read_json(dir / "a.json").dump(), "{\"a\":1}");
  test::put_file(dir / "empty.json", "");
  expect_error(ErrorKind::bad_data, {"empty.json"}, [&] { read_json(dir / "empty.json"); });
  expect_error(ErrorKind::no_input, {"none.json"}, [&] { read_json(dir / "none.json"); });
}

class Fields : public testing::Test {
 protected:
  const Json json_ = parse_json(
      R"({"i":7,"big":18446744073709551615,"f":0.5,"s":"x","b":true,"n":null,"l":[1,2],
          "bad_list":[1,"y"],"o":{"p":{"q":-1}}})",
      file);
  const JsonFields fields_{json_, file};
};

TEST_F(Fields, ReadWhatIsThere) {
  EXPECT_EQ(fields_.integer("i", 0, 7), 7);
  EXPECT_EQ(fields_.number("f", 0, 1), 0.5);
  EXPECT_EQ(fields_.number("i", 0, 10), 7.0);
  EXPECT_EQ(fields_.string("s"), "x");
  EXPECT_TRUE(fields_.boolean("b", false));
  EXPECT_EQ(fields_.integers("l", 0, 9), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(fields_.integers("i", 0, 9), (std::vector<int64_t>{7}));
  EXPECT_EQ(fields_.object("o").object("p").integer("q", -1, 1), -1);
}

TEST_F(Fields, AbsentAndNullAreTheSame) {
  for (const char* key : {"n", "none"}) {
    EXPECT_FALSE(fields_.has(key));
    EXPECT_FALSE(fields_.maybe_integer(key, 0, 1));
    EXPECT_FALSE(fields_.maybe_number(key, 0, 1));
    EXPECT_FALSE(fields_.maybe_string(key));
    EXPECT_TRUE(fields_.boolean(key, true));
    EXPECT_TRUE(fields_.integers(key, 0, 1).empty());
    expect_error(ErrorKind::bad_data, {"x.json", key}, [&] { fields_.integer(key, 0, 1); });
    expect_error(ErrorKind::bad_data, {"x.json", key}, [&] { fields_.object(key); });
  }
}

TEST_F(Fields, ErrorsNameFieldExpectedAndGot) {
  constexpr auto bad = ErrorKind::bad_data;
  expect_error(bad, {"x.json", "`i`", "0 to 6", "got 7"}, [&] { fields_.integer("i", 0, 6); });
  expect_error(bad, {"`i`", "8 to 9", "got 7"}, [&] { fields_.maybe_integer("i", 8, 9); });
  expect_error(bad, {"`f`", "integer", "0.5"}, [&] { fields_.integer("f", 0, 6); });
  expect_error(bad, {"`big`", "got 18446744073709551615"},
               [&] { fields_.integer("big", INT64_MIN, INT64_MAX); });
  expect_error(bad, {"`s`", "integer", "\"x\""}, [&] { fields_.integer("s", 0, 6); });
  expect_error(bad, {"`f`", "1 to 2", "0.5"}, [&] { fields_.maybe_number("f", 1, 2); });
  expect_error(bad, {"`b`", "a number", "true"}, [&] { fields_.number("b", 0, 2); });
  expect_error(bad, {"`i`", "a string", "7"}, [&] { fields_.maybe_string("i"); });
  expect_error(bad, {"`i`", "true or false", "7"}, [&] { fields_.boolean("i", true); });
  expect_error(bad, {"`bad_list[1]`", "\"y\""}, [&] { fields_.integers("bad_list", 0, 9); });
  expect_error(bad, {"`l`", "object", "[1,2]"}, [&] { fields_.object("l"); });
  expect_error(bad, {"x.json: field `o.p.q`", "0 to 1", "-1"},
               [&] { fields_.object("o").object("p").integer("q", 0, 1); });
  const Json list = Json::array();
  expect_error(bad, {"x.json", "object", "[]"}, [&] { JsonFields(list, file); });
}

TEST(Json, AppendsMembers) {
  Json object = Json::object();
  append_member(object, "b", 1);
  append_member(object, "a", {{"x", 2}});
  EXPECT_EQ(object.dump(), R"({"b":1,"a":{"x":2}})");
}

}  // namespace
}  // namespace gqa
