// Whom `atom chat` talks to: a server with the OpenAI API, or a model in this process behind the same API, without a socket.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "serve_options.h"

namespace atom::app {

class ChatServer {
 public:
  virtual ~ChatServer() = default;

  struct Answer {
    int status = 0;    // of HTTP
    std::string body;  // empty where events were read
  };
  // POST /v1/chat/completions. `event` gets the data of each event of a stream, as it comes; what it throws ends the request.
  // Error: no connection, an answer that ends early; also once `stopped` of the maker says so.
  virtual Answer chat(const std::string& body,
                      const std::function<void(std::string_view data)>& event) = 0;
  virtual const std::string& model() const = 0;  // its name in requests
  virtual const std::string& place() const = 0;  // URL or folder
};

// Asked several times a second while an answer is awaited.
using Stopped = std::function<bool()>;

// What of a server's error answer is for a person: its message, or the beginning of what else it sent.
std::string server_error(int status, const std::string& body);
// The message of a JSON error, in the forms that servers use; empty: there is none.
std::string error_message(std::string_view json);

bool is_url(std::string_view target);
struct ChatUrl {
  std::string url;          // http://HOST[:PORT][/v1] or https://...
  std::string api_key;      // empty: none
  std::string authorities;  // PEM file of certificates to trust; empty: the system's
  std::string model;        // empty: the first of /v1/models
};
// UsageError: a URL of another form; Error: no such server, one whose certificate is not accepted, one that names no model.
std::unique_ptr<ChatServer> connect_chat(const ChatUrl& to, const Stopped& stopped);
// options.model is the folder. Error: a folder that cannot be loaded, or without a chat template.
std::unique_ptr<ChatServer> load_chat(const ServeOptions& options, const Stopped& stopped);

}  // namespace atom::app
