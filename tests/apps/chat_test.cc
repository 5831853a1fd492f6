// atom chat as a user starts it: pipes, a terminal, servers that mean well and servers that do not.
#include <gtest/gtest.h>

#include "apps/model_copy.h"
#include "apps/run_program.h"
#include "apps/tiny_server.h"
#include "base/json.h"
#include "testing/temp_folder.h"

namespace atom::testing {
namespace {

using Texts = std::vector<std::string>;

const std::string kStreamHead =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

std::string event(const std::string& json) { return "data: " + json + "\n\n"; }

// `content`: JSON text.
std::string delta(const std::string& content) {
  return event(R"({"choices":[{"index":0,"delta":{"content":)" + content + "}}]}");
}

std::string stream(const std::string& events, size_t piece = 7) {
  return kStreamHead + chunked(events, piece);
}

std::string whole_answer(const Texts& contents) {
  std::string events = event(R"({"choices":[{"delta":{"role":"assistant","content":""}}]})");
  for (const std::string& content : contents) events += delta(content);
  events += event(R"({"choices":[{"delta":{},"finish_reason":"stop"}]})");
  events += event(R"({"choices":[],"usage":{"completion_tokens":2}})");
  return stream(events + "data: [DONE]\n\n");
}

std::string models() { return plain(200, R"({"data":[{"id":"tiny"},{"id":"other"}]})"); }

// A server that lists its models and gives `answer` to every chat.
std::function<std::string(const std::string&)> chats(std::string answer) {
  return [answer = std::move(answer)](const std::string& request) {
    return request.starts_with("GET /v1/models ") ? models() : answer;
  };
}

// The standard input of the programs that start while it lives.
class Input {
 public:
  explicit Input(const std::string& text) : old_(::dup(STDIN_FILENO)) {
    int ends[2];
    if (::pipe(ends) != 0) throw std::runtime_error("no pipe");
    if (::write(ends[1], text.data(), text.size()) != static_cast<ssize_t>(text.size()))
      throw std::runtime_error("no write");
    ::close(ends[1]);
    ::dup2(ends[0], STDIN_FILENO);
    ::close(ends[0]);
  }
  ~Input() {
    ::dup2(old_, STDIN_FILENO);
    ::close(old_);
  }
  Input(const Input&) = delete;
  Input& operator=(const Input&) = delete;

 private:
  int old_;
};

Result chat(const std::string& target, const std::string& input, const Texts& more = {}) {
  const Input typed(input);
  Texts arguments = {"chat", target};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return run_program(std::move(arguments));
}

Json body_of(const std::string& request) {
  return parse_json(request.substr(request.find("\r\n\r\n") + 4), {.source = "a request"});
}

Json last_body(TinyServer& server) { return body_of(server.requests().back()); }

// "user: Hi|assistant: Hello|"
std::string said(const Json& body) {
  std::string text;
  for (const Json& message : body["messages"])
    text += message["role"].get<std::string>() + ": " + message["content"].get<std::string>() + "|";
  return text;
}

TEST(ChatTest, EachLineOfAPipeIsATurn) {
  TinyServer server(chats(whole_answer({"\"H\\u00e9\"", "\"llo\\n\\ud83d\\ude00\""})));
  const Result result =
      chat(server.url() + "/v1/", "Hi\n\nAnd \u00e9?", {"--api-key", "k", "--system", "Be brief."});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.out, "H\u00e9llo\n\U0001F600\nH\u00e9llo\n\U0001F600\n");
  EXPECT_EQ(result.err, "");
  const Texts requests = server.requests();
  ASSERT_EQ(requests.size(), 3u);
  EXPECT_TRUE(requests[1].starts_with("POST /v1/chat/completions HTTP/1.1\r\n"));
  EXPECT_NE(requests[2].find("Authorization: Bearer k\r\n"), std::string::npos);
  Json body = body_of(requests[2]);
  EXPECT_EQ(said(body),
            "system: Be brief.|user: Hi|assistant: H\u00e9llo\n\U0001F600|user: And \u00e9?|");
  body.erase("messages");
  EXPECT_EQ(
      body,
      Json({{"model", "tiny"}, {"stream", true}, {"stream_options", {{"include_usage", true}}}}));
}

TEST(ChatTest, OptionsReachTheRequestOfOneTurn) {
  TinyServer server(chats(whole_answer({"\"yes\""})));
  const Result result = chat(
      server.url(), "not read",
      {"--prompt", "Hi", "--model", "other", "--temperature", "0.5", "--top-p", "0.9", "--top-k",
       "4", "--min-p", "0.1", "--max-tokens", "7", "--seed", "9223372036854775807"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.out, "yes\n");
  ASSERT_EQ(server.requests().size(), 1u);
  const Json body = last_body(server);
  EXPECT_EQ(said(body), "user: Hi|");
  const Json wanted = {{"model", "other"}, {"temperature", 0.5}, {"top_p", 0.9},     {"top_k", 4},
                       {"min_p", 0.1},     {"max_tokens", 7},    {"seed", INT64_MAX}};
  for (const auto& [name, value] : wanted.items()) EXPECT_EQ(body[name], value) << name;
}

TEST(ChatTest, CommandsAndTextsOfManyLines) {
  const TempFolder folder;
  const std::string file = (folder / "saved.json").string();
  TinyServer server(chats(whole_answer({"\"A\""})));
  const Result result =
      chat(server.url(),
           "one\\\ntwo\n/regenerate\n/system S\n\"\"\"\n/clear\n\nthree\"\"\"\n//etc\n/save " +
               file + "\n/save " + file + "\n/clear\nlast\n/exit\nnever\n",
           {"--seed", "5"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.out, "A\nA\nA\nA\nA\n");
  const Texts requests = server.requests();
  ASSERT_EQ(requests.size(), 6u);
  EXPECT_EQ(said(body_of(requests[1])), "user: one\ntwo|");
  EXPECT_EQ(said(body_of(requests[2])), "user: one\ntwo|");
  EXPECT_EQ(body_of(requests[1])["seed"], 5);
  EXPECT_EQ(body_of(requests[2])["seed"], 6);
  const std::string before = "system: S|user: one\ntwo|assistant: A|user: /clear\n\nthree|";
  EXPECT_EQ(said(body_of(requests[3])), before);
  EXPECT_EQ(said(body_of(requests[4])), before + "assistant: A|user: /etc|");
  EXPECT_EQ(said(body_of(requests[5])), "system: S|user: last|");
  const Json saved = parse_json(read_file(file));
  EXPECT_EQ(saved["model"], "tiny");
  EXPECT_EQ(said(saved), before + "assistant: A|user: /etc|assistant: A|");

  for (const auto& [input, words] :
       {std::pair<std::string, std::string>{"/save " + file, "saved.json exists already"},
        {"/save", "the name of a file is missing"},
        {"/regenerate", "nothing was asked yet"},
        {"/hlep", "/hlep is no command"},
        {"\xff", "not UTF-8"}}) {
    const Result refused = chat(server.url(), input + "\nnever\n");
    EXPECT_EQ(refused.code, 1) << input;
    EXPECT_NE(refused.err.find(words), std::string::npos) << refused.err;
  }
  EXPECT_EQ(server.requests().size(), 11u);  // the lists of models alone
}

TEST(ChatTest, OnlyTextReachesTheTerminal) {
  TinyServer server(chats(whole_answer(
      {"\"a\\u001b\"", "\"]0;x\\u0007\"", "\"\\u009b31m\\u007f\\r\\tb\\nc\\u0000\""})));
  const std::string shown = "a\\x1b]0;x\\x07\\xc2\\x9b31m\\x7f\\x0d\tb\nc\\x00\n";
  EXPECT_EQ(chat(server.url(), "Hi").out, shown);
  TinyServer failing(chats(plain(500, R"({"error":{"message":"bad \u001b[31m\nthing"}})")));
  const Result result = chat(failing.url(), "Hi");
  EXPECT_EQ(result.code, 1);
  EXPECT_EQ(result.err, "atom: error: the server answered 500: bad \\x1b[31m\\x0athing\n");
}

TEST(ChatTest, HostileServersGetOneSentence) {
  std::string deep(40, '[');
  const std::string part = delta("\"part\"");
  struct Case {
    std::string answer, words;
  };
  const std::vector<Case> cases = {
      {"", "closed the connection"},
      {"nonsense\r\n\r\nConnection: close", "not HTTP/1.1"},
      {plain(500, "<html>\n<b>no</b>"), "answered 500 without a message: <html>"},
      {plain(502, ""), "answered 502 without a message"},
      {plain(500, std::string(9999, 'x')), "xxx..."},
      {plain(401, R"({"error":{"message":"wrong key"}})"), "answered 401: wrong key"},
      {plain(404, R"({"error":"no such model"})"), "answered 404: no such model"},
      {plain(422, R"({"detail":"none"})"), "answered 422: none"},
      {plain(200, R"({"choices":[{"message":{"content":"x"}}]})"), "no stream of events"},
      {stream(""), "ended the answer too early"},
      {stream(part), "ended the answer too early"},
      {stream(part + "data: {\"choices\":"), "ended the answer too early"},
      {stream(part + "data: {]\n\n"), "not valid JSON"},
      {stream(event(deep)), "nested deeper"},
      {stream(event("\"\xff\"")), "not valid JSON"},
      {stream(event(R"({"error":{"message":"no more pages"}})")), "no more pages"},
      {stream(event(R"({"error":7})")), "ended the answer with an error"},
      {stream(event(R"({"choices":[{"delta":{"content":7}}]})")), "content that is no text"},
      {stream(event(R"([{"choices":7}])") + event(R"({"choices":[7],"usage":[]})") +
              event(R"({"choices":{},"usage":{"completion_tokens":"x"}})")),
       "ended the answer too early"},
      {kStreamHead + "5\r\ndata:\r\nzz\r\nConnection: close", "a length that is none"},
  };
  for (const Case& one : cases) {
    TinyServer server(chats(one.answer));
    const Result result = chat(server.url(), "Hi\nnever\n");
    EXPECT_EQ(result.code, 1) << one.words;
    EXPECT_TRUE(result.err.starts_with("atom: error: ")) << result.err;
    EXPECT_EQ(result.err.find('\n'), result.err.size() - 1) << result.err;
    EXPECT_LT(result.err.size(), 400u);
    EXPECT_NE(result.err.find(one.words), std::string::npos) << result.err;
    EXPECT_EQ(server.requests().size(), 2u) << one.words;
    EXPECT_EQ(result.out, one.answer.find("part") != std::string::npos ? "part\n" : "");
  }
  for (const char* list : {R"({"data":[]})", "[]", R"({"data":[{"id":7}]})", "<html>"}) {
    TinyServer server([&](const std::string&) { return plain(200, list); });
    const Result result = chat(server.url(), "Hi");
    EXPECT_EQ(result.code, 1) << list;
    EXPECT_NE(result.err.find("/v1/models"), std::string::npos) << result.err;
  }
}

TEST(ChatTest, WrongCommandLinesAreRefused) {
  for (const auto& [arguments, words] :
       {std::pair<Texts, std::string>{{"ftp://h"}, "neither with http:// nor"},
        {{"http://h:0"}, "from 1 to 65535"},
        {{"http://h", "--prompt", ""}, "the prompt is empty"},
        {{"http://h", "--seed", "x"}, "--seed"},
        {{"http://h", "--top-p", "0"}, "--top-p"}}) {
    Texts all = {"chat"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    const Result result = run_program(all);
    EXPECT_EQ(result.code, 2) << words;
    EXPECT_NE(result.err.find(words), std::string::npos) << result.err;
  }
  EXPECT_EQ(run_program({"chat", "http://127.0.0.1:1", "-p", "x"}).code, 1);
  EXPECT_EQ(run_program({"chat", "/no/such/folder", "-p", "x"}).code, 1);
}

TEST(ChatTest, AModelInThisProcess) {
  const TempFolder folder;
  const std::string file = (folder / "t.jinja").string();
  write_text(file, "{% for m in messages %}{{ m.content }} {% endfor %}");
  const Texts options = {"--chat-template", file, "--temperature",   "0",  "--max-tokens", "6",
                         "--threads",       "2",  "--max-model-len", "128"};
  const std::string model = shipped_model().string();
  const Result two = chat(model, "The city of\n/regenerate\n", options);
  ASSERT_EQ(two.code, 0) << two.err;
  ASSERT_GT(two.out.size(), 6u);
  EXPECT_EQ(two.out.substr(0, two.out.size() / 2), two.out.substr(two.out.size() / 2));
  std::string long_text;
  for (int i = 0; i < 200; ++i) long_text += "word ";
  const Result full = chat(model, long_text, options);
  EXPECT_EQ(full.code, 1);
  EXPECT_NE(full.err.find("the server answered 400: messages: has "), std::string::npos)
      << full.err;
  const Result none = chat(model, "x");
  EXPECT_EQ(none.code, 1);
  EXPECT_NE(none.err.find("this model has no chat template, so it cannot chat"), std::string::npos)
      << none.err;
}

TEST(ChatTest, AModelsOwnDefaults) {
  const TempFolder folder;
  const ModelCopy copy(folder / "model", shipped_model());
  copy.replace("chat_template.jinja", "{% for m in messages %}{{ m.content }} {% endfor %}");
  const auto ask = [&](const std::string& generation_config, Texts more) {
    copy.replace("generation_config.json", generation_config);
    more.insert(more.end(), {"--prompt", "The city of", "--threads", "2", "--max-model-len", "64"});
    return chat(copy.path(), "", more);
  };
  const Result given = ask("{}", {"--temperature", "0", "--max-tokens", "4"});
  ASSERT_EQ(given.code, 0) << given.err;
  EXPECT_EQ(given.err.find("say nothing else"), std::string::npos) << given.err;
  const Result own = ask(R"({"temperature": 0.0, "max_new_tokens": 4})", {});
  EXPECT_EQ(own.out, given.out);
  EXPECT_NE(own.err.find("generation_config.json: requests that say nothing else get temperature "
                         "0, max_tokens of chats 4"),
            std::string::npos)
      << own.err;

  Json ends = {{"eos_token_id", Json::array()}, {"temperature", "hot"}};
  for (int id = 0; id < 4096; ++id) ends["eos_token_id"].push_back(id);
  EXPECT_EQ(ask(ends.dump(), {"--generation-config", "none"}).out, "\n");  // each id ends a text
  const Result wrong = ask(ends.dump(), {});
  EXPECT_EQ(wrong.code, 1);
  EXPECT_NE(wrong.err.find("\"temperature\" must be a number, but is \"hot\""), std::string::npos)
      << wrong.err;
  const Result missing = ask("{}", {"--generation-config", (folder / "none").string()});
  EXPECT_EQ(missing.code, 1);
  EXPECT_NE(missing.err.find("generation_config.json"), std::string::npos) << missing.err;
}

// The program with a terminal for all its streams.
class Terminal {
 public:
  explicit Terminal(const Invocation& run) {
    int ends[2];
    if (!open_terminal(ends)) throw std::runtime_error("no terminal");
    child_ = ::fork();
    if (child_ == 0) {
      ::dup2(ends[1], STDIN_FILENO);
      become_program(run, ends[1], ends[1]);
    }
    ::close(ends[1]);
    file_ = ends[0];
  }
  ~Terminal() {
    if (child_ > 0) ::kill(child_, SIGKILL);
    code();
    ::close(file_);
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  void type(const std::string& text) const {
    EXPECT_EQ(::write(file_, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  void signal(int number) const { ::kill(child_, number); }
  // What is shown up to `words`, and they; all that is shown where they do not come before the end or within a minute.
  std::string until(const std::string& words) {
    for (size_t end;;) {
      if ((end = rest_.find(words)) != std::string::npos) {
        const std::string shown = rest_.substr(0, end + words.size());
        rest_.erase(0, shown.size());
        return shown;
      }
      pollfd one = {file_, POLLIN, 0};
      char bytes[4096];
      ssize_t size = 0;
      if (::poll(&one, 1, 60000) <= 0 || (size = ::read(file_, bytes, sizeof bytes)) <= 0)
        return std::exchange(rest_, "") + "<nothing more>";
      rest_.append(bytes, static_cast<size_t>(size));
    }
  }
  int code() {
    if (child_ > 0) {
      int status = 0;
      ::waitpid(child_, &status, 0);
      child_ = 0;
      code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
    return code_;
  }

 private:
  pid_t child_ = -1;
  int file_ = -1, code_ = -1;
  std::string rest_;
};

TEST(ChatTest, CtrlCStopsAnAnswerAndThenTheProgram) {
  if (!has_terminals()) GTEST_SKIP() << "no terminals here";
  std::atomic<int> chats = 0;
  TinyServer server([&](const std::string& request) {
    if (request.starts_with("GET")) return models();
    const std::string part = delta("\"par\\u001bt\"");
    if (++chats == 1) return kStreamHead + fmt::format("{:x}\r\n{}\r\n", part.size(), part);
    return chats == 2 ? plain(500, R"({"error":"not now"})") : whole_answer({"\"x\"", "\"y\""});
  });
  Terminal terminal({.arguments = {"chat", server.url()}, .terminal = true});
  EXPECT_EQ(terminal.until("> ").find("<nothing"), std::string::npos);
  terminal.type("Hi\n");
  EXPECT_NE(terminal.until("par\\x1bt").find("par"), std::string::npos);
  terminal.signal(SIGINT);
  EXPECT_NE(terminal.until("> ").find("1 token, stopped)"), std::string::npos);
  terminal.type("Again\n");
  EXPECT_NE(terminal.until("> ").find("not now"), std::string::npos);
  terminal.type("/regenerate\n");
  const std::string shown = terminal.until("> ");
  EXPECT_NE(shown.find("xy\r\n"), std::string::npos) << shown;
  EXPECT_NE(shown.find("s to the first token, 2 tokens"), std::string::npos) << shown;
  EXPECT_EQ(said(last_body(server)), "user: Hi|assistant: par\x1bt|user: Again|");
  terminal.signal(SIGINT);
  terminal.until("interrupted");
  EXPECT_EQ(terminal.code(), 130);
}

TEST(ChatTest, TheEndOfInputEnds) {
  if (!has_terminals()) GTEST_SKIP() << "no terminals here";
  TinyServer server(chats(whole_answer({"\"x\""})));
  Terminal terminal({.arguments = {"chat", server.url(), "--quiet"}, .terminal = true});
  terminal.until("> ");
  terminal.type("/help\n");
  EXPECT_NE(terminal.until("Ctrl-C stops").find("/regenerate"), std::string::npos);
  terminal.type("\x04");
  EXPECT_EQ(terminal.code(), 0);
}

}  // namespace
}  // namespace atom::testing
