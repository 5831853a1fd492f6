// atom serve as a user starts it: options of three sources, requests over a socket, signals.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "apps/model_copy.h"
#include "apps/served.h"
#include "serving/certificate.h"
#include "testing/temp_folder.h"

namespace atom::testing {
namespace {

const std::string kModel = kServedModel;

TEST(ServeTest, ServesUntilItIsToldToStop) {
  Served served(serve({}));
  ASSERT_NE(served.port(), 0) << served.errors();
  EXPECT_EQ(served.line(),
            "ref-dense-11m is served at http://127.0.0.1:" + std::to_string(served.port()));
  Client client(served.port());
  ASSERT_TRUE(client.send(request("GET", "/health")));
  EXPECT_EQ(client.answer().status, 200);
  ASSERT_TRUE(client.send(request("GET", "/v1/models")));
  EXPECT_EQ(json_of(client.answer())["data"][0]["id"], "ref-dense-11m");
  ASSERT_TRUE(client.send(request("GET", "/")));
  const Answer page = client.answer();
  EXPECT_EQ(page.status, 200);
  EXPECT_TRUE(page.headers.at("content-security-policy").starts_with("default-src 'none'"));

  const std::string body =
      R"({"model": "ref-dense-11m", "prompt": "The city", "max_tokens": 8, "temperature": 0)";
  ASSERT_TRUE(client.send(request("POST", "/v1/completions", body + "}")));
  const Json whole = json_of(client.answer());
  EXPECT_EQ(whole["usage"]["completion_tokens"], 8) << whole;
  ASSERT_TRUE(client.send(request("POST", "/v1/completions", body + R"(, "stream": true})")));
  const Answer stream = client.answer();
  EXPECT_EQ(stream.headers.at("content-type").substr(0, 17), "text/event-stream");
  EXPECT_TRUE(stream.body.ends_with("data: [DONE]\n\n")) << stream.body;
  ASSERT_TRUE(client.send(request("POST", "/v1/completions", "{")));
  EXPECT_EQ(json_of(client.answer())["error"]["type"], "invalid_request_error");
  ASSERT_TRUE(client.send(request("GET", "/v1/models", "", "Connection: close\r\n")));
  EXPECT_EQ(client.answer().status, 200);

  // An open stream ends as it would have, and nobody new comes in.
  Client last(served.port());
  ASSERT_TRUE(last.send(
      request("POST", "/v1/completions",
              R"({"prompt": "The city", "max_tokens": 200, "ignore_eos": true, "stream": true})")));
  ASSERT_TRUE(last.read_until("data: "));
  served.signal(SIGTERM);
  const Answer drained = last.answer();
  EXPECT_TRUE(drained.body.ends_with("data: [DONE]\n\n")) << drained.body;
  EXPECT_NE(drained.body.find("\"finish_reason\":\"length\""), std::string::npos) << drained.body;
  EXPECT_EQ(served.code(), 0) << served.errors();
  EXPECT_FALSE(Client(served.port()).connected());
}

TEST(ServeTest, ChatTakesTemplateAndTokensOfTheFolder) {
  const TempFolder folder;
  const ModelCopy copy(folder / "model", kModel);
  copy.replace("special_tokens_map.json", R"({"bos_token": {"content": "</s>"}})");
  copy.replace("tokenizer_config.json",
               R"({"eos_token": "<unk>", "chat_template": [{"name": "rag", "template":
                   "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"}]})");
  Invocation run = serve({});
  run.arguments[1] = copy.path();
  Served served(run);
  ASSERT_NE(served.port(), 0) << served.errors();
  Client client(served.port());
  const auto tokens = [&client](const std::string& body) {
    EXPECT_TRUE(client.send(request("POST", "/tokenize", body)));
    return json_of(client.answer())["tokens"];
  };
  const Json plain = tokens(R"({"prompt": "</s>hi<unk>", "add_special_tokens": false})");
  EXPECT_GE(plain.size(), 3u);
  EXPECT_EQ(tokens(R"({"messages": [{"role": "user", "content": "hi"}]})"), plain);
  served.signal(SIGTERM);
  EXPECT_EQ(served.code(), 0);
  EXPECT_NE(served.errors().find("no chat template has the name 'default': 'rag' is used"),
            std::string::npos);
}

TEST(ServeTest, TakesOptionsFromTheCommandLineThenVariablesThenAFile) {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("serve-" + std::to_string(::getpid()) + ".toml"))
          .string();
  std::ofstream(path) << "# names\nserved-model-name = [\"file\", \"other\"]\napi_key = "
                         "\"from-file\"\nhost = \"localhost\"\n"
                         "max-num-seqs = 2\nmax-model-len = 128\n";
  Invocation run = serve({"--config", path, "--drain-timeout", "0"});
  run.environment = {{"ATOM_HOST", "127.0.0.1"}, {"ATOM_API_KEY", "from-environment"}};
  Served served(run);
  ASSERT_NE(served.port(), 0) << served.errors();
  EXPECT_TRUE(served.line().starts_with("file is served at http://127.0.0.1:")) << served.line();
  Client client(served.port());
  const auto models = [&client](const std::string& headers) {
    EXPECT_TRUE(client.send(request("GET", "/v1/models", "", headers)));
    return client.answer();
  };
  EXPECT_EQ(models("").status, 401);
  EXPECT_EQ(models("Authorization: Bearer from-file\r\n").status, 401);
  const Json list = json_of(models("Authorization: Bearer from-environment\r\n"));
  EXPECT_EQ(list["data"][1]["id"], "other");
  EXPECT_EQ(list["data"][0]["max_model_len"], 256);  // of the command line
  ASSERT_TRUE(client.send(request("GET", "/", "")));
  EXPECT_EQ(client.answer().status, 200);

  // A request that is open when the time is over is told so, or cut off; the program ends in any case.
  Client last(served.port());
  ASSERT_TRUE(last.send(
      request("POST", "/v1/completions",
              R"({"prompt": "The city", "max_tokens": 200, "ignore_eos": true, "stream": true})",
              "Authorization: Bearer from-environment\r\n")));
  ASSERT_TRUE(last.read_until("data: "));
  served.signal(SIGINT);
  EXPECT_EQ(served.code(), 0) << served.errors();

  const auto refusal = [&path](const std::string& text) {
    std::ofstream(path) << text;
    Result result = run_program(serve({"--config", path}));
    EXPECT_NE(result.code, 0);
    return result.err.substr(0, result.err.find(" (see"));
  };
  EXPECT_NE(refusal("\nport = 1\nports = 1\n").find(path + ":3: ports: 'serve' has no such option"),
            std::string::npos);
  EXPECT_NE(
      refusal("max-num-seqs = 0\n").find(":1: max-num-seqs: '0' is not a whole number from 1"),
      std::string::npos);
  EXPECT_NE(refusal("insecure = 1\n").find(":1: insecure: the value is not true or false"),
            std::string::npos);
  EXPECT_NE(refusal("host = [\"a\", \"b\"]\n").find(":1: host: the option takes one value"),
            std::string::npos);
  EXPECT_NE(refusal("[server]\nport = 1\n").find(":1: server: the value is not a string"),
            std::string::npos);
  EXPECT_NE(refusal("a = \n").find(path + ":1: "), std::string::npos);
  EXPECT_NE(refusal("# \xCE\x9E\na = '\xCE\x9E'\nb = \xCE\x9E\n").find(path + ":3: "),
            std::string::npos);
  std::filesystem::remove(path);
}

TEST(ServeTest, ClientsOfTheProgramTrustWhatTheyAreTold) {
  const TempFolder folder;
  const auto path = [&](const char* name) { return (folder.path() / name).string(); };
  make_certificate(make_key(path("key.pem")).get(), path("certificate.pem"));
  make_certificate(make_key(path("key2.pem")).get(), path("other.pem"));
  Served served(
      serve({"--ssl-certfile", path("certificate.pem"), "--ssl-keyfile", path("key.pem")}));
  ASSERT_NE(served.port(), 0) << served.errors();
  const auto load = [&](const std::string& url, std::vector<std::string> more) {
    std::vector<std::string> arguments = {"bench", "serve",         url, "--requests",
                                          "3",     "--concurrency", "2"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_program(arguments);
  };
  const std::string port = ":" + std::to_string(served.port());
  for (const char* host : {"127.0.0.1", "localhost"}) {
    const Result good = load(std::string("https://") + host + port,
                             {"--cacert", path("certificate.pem"), "--output-tokens", "4"});
    EXPECT_EQ(good.code, 0) << good.err;
    EXPECT_NE(good.out.find("3 in "), std::string::npos) << good.out;
  }
  const std::string url = "https://127.0.0.1" + port;
  EXPECT_NE(load(url, {}).err.find("the server's certificate is not accepted: self"),
            std::string::npos);
  EXPECT_NE(load(url, {"--cacert", path("other.pem")}).err.find("is not accepted"),
            std::string::npos);
  EXPECT_NE(load("https://127.1" + port, {"--cacert", path("certificate.pem")})
                .err.find("is not accepted"),
            std::string::npos);
  EXPECT_NE(load(url, {"--cacert", path("key.pem")}).err.find("key.pem: cannot read certificates"),
            std::string::npos);
  const Result talk =
      run_program({"chat", url, "--cacert", path("certificate.pem"), "--prompt", "Hi"});
  EXPECT_NE(talk.err.find("chat template"), std::string::npos) << talk.err;  // which it has not
  Served plain(serve({}));
  EXPECT_NE(load("https://127.0.0.1:" + std::to_string(plain.port()), {})
                .err.find("the server does not speak TLS"),
            std::string::npos);
}

TEST(ServeTest, RefusesWhatCannotWork) {
  const auto errors = [](std::vector<std::string> arguments) {
    const Result result = run_program(serve(std::move(arguments)));
    EXPECT_NE(result.code, 0);
    EXPECT_TRUE(result.out.empty()) << result.out;
    return result.err;
  };
  EXPECT_NE(
      errors({"--host", "0.0.0.0"}).find("--host: 0.0.0.0 can be reached from other machines"),
      std::string::npos);
  EXPECT_NE(
      errors({"--ssl-certfile", "a.pem"}).find("--ssl-certfile and --ssl-keyfile belong together"),
      std::string::npos);
  EXPECT_NE(errors({"--api-key", "a b"}).find("--api-key: the key has characters"),
            std::string::npos);
  EXPECT_NE(
      errors({"--max-num-batched-tokens", "8"}).find("--max-num-batched-tokens: 8 is less than"),
      std::string::npos);
  const Result missing = run_program({"serve", "/nowhere"});
  EXPECT_EQ(missing.code, 1);
  EXPECT_NE(missing.err.find("/nowhere"), std::string::npos);
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(listener, 1), 0);
  ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
  const std::string port = std::to_string(ntohs(address.sin_port));
  const Result taken = run_program({"serve", kModel, "--port", port});
  EXPECT_EQ(taken.code, 1);
  EXPECT_NE(taken.err.find("cannot listen on 127.0.0.1 port " + port + ": Address already in use"),
            std::string::npos)
      << taken.err;
  ::close(listener);
}

}  // namespace
}  // namespace atom::testing
