#include "cli/completion.h"

#include <memory>
#include <vector>

#include "cli/args.h"
#include "cli/terminal.h"

namespace gqa::cli {
namespace {

const std::vector<std::string> shells{"bash", "zsh"};

}  // namespace

void declare_completion(Command& verb, const Command& program) {
  auto shell = std::make_shared<std::string>();
  Option& option = add_value(verb, "SHELL", "SHELL", "Whose script to print: " + one_of(shells),
                             [shell](const std::string& value) {
                               if (value != "bash" && value != "zsh")
                                 refuse("SHELL", one_of(shells), value);
                               *shell = value;
                             });
  option.required = true;
  option.forms = shells;
  verb.footer =
      "Now:        source <(gqa completion bash)\n"
      "In future:  gqa completion bash > ~/.local/share/bash-completion/completions/gqa\n"
      "            gqa completion zsh > FOLDER/_gqa, with FOLDER one of zsh's $fpath";
  verb.run = [shell, &program] {
    print(*shell == "bash" ? bash_completion(program) : zsh_completion(program));
    return 0;
  };
}

}  // namespace gqa::cli
