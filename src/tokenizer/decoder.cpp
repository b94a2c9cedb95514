#include "tokenizer/decoder.h"

#include <limits>

#include "tokenizer/components.h"

namespace gqa {

Decoder Decoder::load(const JsonFields& top) {
  Decoder d;
  if (!top.has("decoder")) {
    d.steps_.emplace_back(Join{});
    return d;
  }
  for_each_component(
      top, "decoder", "decoders",
      [&](const JsonFields& fields, const std::string& type) { d.add(fields, type); });
  return d;
}

void Decoder::add(const JsonFields& fields, const std::string& type) {
  constexpr int64_t most = std::numeric_limits<int32_t>::max();
  if (type == "Replace") {
    steps_.emplace_back(Replacement::load(fields));
  } else if (type == "ByteFallback") {
    steps_.emplace_back(ByteFallback{});
  } else if (type == "Fuse") {
    steps_.emplace_back(Fuse{});
  } else if (type == "Strip") {
    steps_.emplace_back(StripOptions{required_character(fields, "content"),
                                     static_cast<size_t>(fields.integer("start", 0, most)),
                                     static_cast<size_t>(fields.integer("stop", 0, most))});
  } else if (type == "Metaspace") {
    steps_.emplace_back(Metaspace::load(fields));
  } else if (type == "ByteLevel") {
    steps_.emplace_back(ByteLevel{});
  } else {
    fail_unsupported(fields, "decoder", type,
                     "Replace, ByteFallback, Fuse, Strip, Metaspace, ByteLevel, Sequence");
  }
}

void DecodeChain::add(std::unique_ptr<DecodeStep> step) {
  if (!steps_.empty()) steps_.back()->then(step.get());
  steps_.push_back(std::move(step));
}

void Decoder::add_step(const Step& step, bool fused, DecodeChain& chain) {
  const auto add_whole = [&](std::unique_ptr<DecodeStep> s) {
    if (fused) chain.add(std::make_unique<WholeTokenStep>());
    chain.add(std::move(s));
  };
  if (std::holds_alternative<Join>(step)) {
    chain.add(std::make_unique<JoinStep>());
  } else if (const auto* replacement = std::get_if<Replacement>(&step)) {
    add_whole(std::make_unique<ReplaceStep>(*replacement));
  } else if (std::holds_alternative<ByteFallback>(step)) {
    add_whole(std::make_unique<ByteFallbackStep>());
  } else if (const auto* strip = std::get_if<StripOptions>(&step)) {
    if (fused) {
      chain.add(std::make_unique<StripFusedStep>(*strip));
    } else {
      chain.add(std::make_unique<StripStep>(*strip));
    }
  } else if (const auto* metaspace = std::get_if<Metaspace>(&step)) {
    chain.add(std::make_unique<MetaspaceStep>(*metaspace, fused));
  } else if (std::holds_alternative<ByteLevel>(step)) {
    add_whole(std::make_unique<ByteLevelStep>());
  }
}

DecodeChain Decoder::start() const {
  DecodeChain chain;
  bool fused = false;  // whether a step has made all tokens one
  for (const Step& step : steps_) {
    add_step(step, fused, chain);
    fused = fused || std::holds_alternative<Fuse>(step) || std::holds_alternative<ByteLevel>(step);
  }
  auto end = std::make_unique<CollectStep>();
  chain.end_ = end.get();
  chain.add(std::move(end));
  return chain;
}

}  // namespace gqa
