#include <fmt/format.h>

#include <memory>
#include <string>
#include <vector>

#include "cli/args.h"
#include "cli/format.h"
#include "cli/progress_bar.h"
#include "cli/terminal.h"
#include "cli/verbs.h"
#include "gqa/gguf.h"

namespace gqa::cli {
namespace {

struct GgufArgs {
  Common common;
  std::string model;
  std::string out;
  bool dry_run = false;
  GgufOptions options;
};

std::string dtype_text(const GgufArgs& args) {
  return args.options.dtype ? std::string(gguf_dtype_name(*args.options.dtype)) : "each its own";
}

Json as_json(const GgufArgs& args, const GgufPlan& plan) {
  return {{"model", args.model},
          {"out", args.out},
          {"dry_run", args.dry_run},
          {"architecture", plan.architecture},
          {"dtype", args.options.dtype ? Json(gguf_dtype_name(*args.options.dtype)) : Json()},
          {"kv_heads", plan.source.kv_heads},
          {"tokenizer", plan.tokenizer},
          {"tensors", plan.tensors},
          {"output_bytes", plan.output_bytes},
          {"peak_memory_bytes", plan.peak_memory_bytes},
          {"notes", plan.notes}};
}

std::string as_text(const GgufArgs& args, const GgufPlan& plan) {
  Fields fields;
  fields.add("from", args.model);
  fields.add("to", args.out);
  fields.add("architecture", plan.architecture);
  fields.add("KV heads", range_text(plan.source.kv_heads));
  fields.add("tokenizer", plan.tokenizer);
  fields.add("tensors", std::to_string(plan.tensors));
  fields.add("matrices", dtype_text(args));
  fields.add("output", exact_bytes(plan.output_bytes));
  fields.add("memory", "about " + human_bytes(plan.peak_memory_bytes));
  for (const std::string& line : plan.notes) fields.add("note", line);
  return fields.text();
}

int run_export(const GgufArgs& args) {
  ProgressBar bar(args.common);
  const GgufPlan plan = plan_gguf(args.model, args.options);
  if (args.dry_run) {
    check_gguf_place(args.out, args.options.force);
  } else {
    export_gguf(args.model, args.out, args.options, bar.callback());
  }
  bar.erase();
  if (args.common.json) {
    print_json(as_json(args, plan));
  } else if (args.dry_run) {
    print(as_text(args, plan));
  } else {
    for (const std::string& line : plan.notes) note(args.common, line);
    note(args.common, fmt::format("{}: {}, {} tensors, {}", args.out, plan.architecture,
                                  plan.tensors, human_bytes(plan.output_bytes)));
  }
  return 0;
}

const std::vector<std::string> dtypes{"f32", "f16", "bf16", "q8_0"};

GgufDType parse_dtype_value(const std::string& value) {
  if (const auto dtype = parse_gguf_dtype(value)) return *dtype;
  refuse("--dtype", one_of(dtypes), value);
}

}  // namespace

void declare_export(Command& verb) {
  auto args = std::make_shared<GgufArgs>();
  add_model(verb, args->model);
  add_required(verb, "OUT", args->out, "FILE", "GGUF file to write");
  add_flag(verb, "--force", args->options.force, "Replace an existing GGUF file OUT");
  add_flag(verb, "--dry-run", args->dry_run, "Check and show what would be done; write nothing");
  add_value(verb, "--dtype", "TYPE",
            fmt::format("Type of the matrices: {};\ndefault: each keeps its own", one_of(dtypes)),
            [args](const std::string& value) { args->options.dtype = parse_dtype_value(value); })
      .forms = dtypes;
  add_common(verb, args->common);
  verb.run = [args] { return run_export(*args); };
}

}  // namespace gqa::cli
