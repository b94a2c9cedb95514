#include "model/batch.h"

#include <algorithm>
#include <utility>

namespace gqa {
namespace {

/// Groups of queries begin anew where a sequence was forked: a text would then depend on what its
/// prompt shares.
bool groups_queries(const AttentionSpec& attention) {
  return std::holds_alternative<Clustered>(attention) ||
         std::holds_alternative<DynamicGroups>(attention);
}

std::vector<SharedPrefix> plan_of(const std::vector<Request>& requests, int64_t size,
                                  const AttentionSpec& attention) {
  if (groups_queries(attention)) return std::vector<SharedPrefix>(requests.size());
  std::vector<std::span<const int32_t>> prompts;
  prompts.reserve(requests.size());
  for (const Request& request : requests) prompts.emplace_back(request.prompt);
  return share_prefixes(prompts, size);
}

}  // namespace

Batch::Batch(Context& context, const Model& model, const Tokenizer& tokenizer,
             const GenerateOptions& options, std::vector<Request> requests, int64_t size)
    : context_(&context),
      model_(&model),
      tokenizer_(&tokenizer),
      sampler_(options.sampling),
      attention_(options.attention),
      cache_(model.make_cache(options.kv_dtype.value_or(model.default_kv_dtype()))),
      size_(static_cast<size_t>(size)),
      entries_(requests.size()) {
  if (!std::holds_alternative<ExactAttention>(attention_)) {
    approximation_ = model.make_approximation(attention_, cache_.shape().dtype);
  }
  const auto plan = plan_of(requests, size, attention_);
  for (size_t i = 0; i < requests.size(); ++i) {
    Entry& entry = entries_[i];
    entry.result.prompt_tokens = std::move(requests[i].prompt);
    entry.max_tokens = requests[i].max_tokens;
    entry.share = plan[i];
    stats_.prompt_tokens += std::ssize(entry.result.prompt_tokens);
    total_ += std::ssize(entry.result.prompt_tokens) + entry.max_tokens;
  }
}

void Batch::join() {
  for (; next_ < entries_.size() && active_.size() < size_; ++next_) {
    Entry& entry = entries_[next_];
    const SharedPrefix& share = entry.share;
    if (share.donor) {
      Entry& donor = entries_[*share.donor];
      if (cache_.len(donor.sequence) < share.tokens) return;
      entry.sequence = cache_.fork(donor.sequence, share.tokens);
      donor.share.needed = share.donor_needed_then;
      if (donor.state == State::ended) give_up_unneeded(donor);
    } else {
      entry.sequence = cache_.create();
    }
    stats_.shared_tokens += share.tokens;
    done_ += share.tokens;
    entry.state = State::reading;
    entry.running = std::make_unique<Continuation>(model_->config(), *tokenizer_, sampler_,
                                                   entry.max_tokens, entry.result);
    active_.push_back(next_);
  }
}

std::vector<Model::Step> Batch::next_steps() const {
  std::vector<Model::Step> steps;
  int64_t room = tokens_to_read;
  for (const size_t index : active_) {
    const Entry& entry = entries_[index];
    auto ids = entry.running->ids();
    ids = ids.subspan(static_cast<size_t>(cache_.len(entry.sequence)));
    if (entry.state == State::reading) {
      if (room == 0) break;  // those that joined first are read first: none behind it decodes yet
      ids = ids.first(std::min(ids.size(), static_cast<size_t>(room)));
      room -= std::ssize(ids);
    }
    steps.push_back({entry.sequence, ids});
  }
  return steps;
}

bool Batch::forward() {
  join();
  if (active_.empty()) return false;
  const auto steps = next_steps();
  model_->forward(*context_, cache_, steps, hidden_, approximation_ ? &*approximation_ : nullptr);
  stats_.peak_kv_bytes = std::max(stats_.peak_kv_bytes, cache_.usage().bytes);

  last_.clear();
  drawing_.clear();
  auto row = hidden_.begin();
  for (size_t i = 0; i < steps.size(); ++i) {
    Entry& entry = entries_[active_[i]];
    row += std::ssize(steps[i].tokens) * model_->config().width;
    if (entry.state == State::reading) done_ += std::ssize(steps[i].tokens);
    // What others still fork may lie before its own window.
    if (entry.share.needed == 0) {
      model_->forget(cache_, entry.sequence, cache_.len(entry.sequence), attention_);
    }
    if (cache_.len(entry.sequence) < std::ssize(entry.running->ids())) continue;
    drawing_.push_back(active_[i]);
    last_.insert(last_.end(), row - model_->config().width, row);
    if (entry.state == State::reading) entry.running->start();
    entry.state = State::decoding;
  }
  return true;
}

void Batch::draw() {
  const auto vocabulary = static_cast<size_t>(model_->config().vocab_size);
  logits_.resize(drawing_.size() * vocabulary);
  model_->logits(*context_, last_, logits_);
  for (size_t i = 0; i < drawing_.size(); ++i) {
    Entry& entry = entries_[drawing_[i]];
    const auto before = std::ssize(entry.result.tokens);
    const bool more = entry.running->draw(std::span(logits_).subspan(i * vocabulary, vocabulary));
    const auto made = std::ssize(entry.result.tokens);
    stats_.new_tokens += made - before;
    done_ += (more ? made : entry.max_tokens) - before;
    if (!more) end(entry);
  }
  std::erase_if(active_, [&](size_t index) { return ended(index); });
}

void Batch::end(Entry& entry) {
  entry.state = State::ended;
  entry.running.reset();
  give_up_unneeded(entry);
}

void Batch::give_up_unneeded(Entry& entry) {
  if (entry.share.needed > 0) {
    cache_.truncate(entry.sequence, entry.share.needed);
  } else {
    cache_.free(std::exchange(entry.sequence, -1));
  }
}

}  // namespace gqa
