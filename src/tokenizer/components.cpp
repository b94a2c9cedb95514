#include "tokenizer/components.h"

#include "io/json_value.h"

namespace gqa {
namespace {

/// `at`: the component's place in the file.
void visit_component(const Json& component, const std::filesystem::path& file,
                     const std::string& at, const char* list, const VisitComponent& visit) {
  const JsonFields fields(component, file, at);
  const std::string type = fields.string("type");
  if (type != "Sequence") {
    visit(fields, type);
    return;
  }
  const Json& parts = fields.get(list);
  if (!parts.is_array()) {
    fail(ErrorKind::bad_data, "{}: expected a list, got {}", fields.where(list), parts.type_name());
  }
  for (size_t i = 0; i < parts.size(); ++i) {
    visit_component(parts[i], file, fmt::format("{}.{}[{}]", at, list, i), list, visit);
  }
}

}  // namespace

void for_each_component(const JsonFields& top, const char* field, const char* list,
                        const VisitComponent& visit) {
  if (top.has(field)) visit_component(top.get(field), top.file(), field, list, visit);
}

}  // namespace gqa
