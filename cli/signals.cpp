#include "cli/signals.h"

#include <csignal>

#include "gqa/error.h"

namespace gqa::cli {
namespace {

volatile std::sig_atomic_t signalled = 0;

extern "C" void note_signal(int signal) {
  if (signalled != 0) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);  // delivered when this handler returns
  }
  signalled = 1;
}

}  // namespace

void install_signal_handlers() {
  // No SA_RESTART: a write to a pipe that nobody reads must notice the signal.
  struct sigaction action = {};
  action.sa_handler = note_signal;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  struct sigaction hangup = {};
  sigaction(SIGHUP, nullptr, &hangup);
  if (hangup.sa_handler != SIG_IGN) sigaction(SIGHUP, &action, nullptr);  // else: nohup

  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
}

bool interrupted() { return signalled != 0; }

void throw_if_interrupted() {
  if (interrupted()) throw Error(ErrorKind::interrupted, "interrupted");
}

}  // namespace gqa::cli
