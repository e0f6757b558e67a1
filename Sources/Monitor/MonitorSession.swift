// SPDX-License-Identifier: Apache-2.0
import Assembly

/// One connection of a client: greeting, negotiation, commands one after the other, events.
///
/// A command that takes time is answered before the next one begins; meanwhile nothing is read. Loop thread, machine
/// lock held.
final class MonitorSession {
  /// A client that leaves so many bytes unread is not heard any more until it has read them.
  static let unreadBytesMax = 1 << 20
  /// Events are dropped while a client leaves more than so many bytes unread.
  static let unreadEventBytesMax = 2 << 20

  private let channel: MonitorChannel
  private let commands: MonitorCommands
  private var parser = JSONParser()
  private var input: ArraySlice<UInt8> = []
  private var isNegotiated = false
  // The number of the command that is under way; nil for none.
  private var executing: Int?
  private var commandCount = 0
  private var isProcessing = false

  /// Begins a conversation.
  init(channel: MonitorChannel, commands: MonitorCommands) {
    self.channel = channel
    self.commands = commands
    channel.onInput = { [weak self] in self?.take($0) }
    channel.onDrained = { [weak self] in self?.process() }
    send(["QMP": ["version": commands.version, "capabilities": []]])
    channel.wantsInput = true
  }

  /// Ends the conversation.
  func close() { channel.close() }

  /// Waits a moment for the client to read what is left, then ends the conversation.
  func finish(milliseconds: Int32) {
    channel.finish(milliseconds: milliseconds)
    channel.close()
  }

  private func send(_ value: JSONValue) { channel.write(value.jsonBytes + [0x0d, 0x0a]) }

  /// Tells of an event. Clients hear of events once they have negotiated.
  func tell(_ event: JSONValue) {
    guard isNegotiated, channel.outputCount <= Self.unreadEventBytesMax else { return }
    send(event)
  }

  // MARK: Requests

  private func take(_ bytes: [UInt8]) {
    input += bytes
    process()
  }

  private func process() {
    // A command that runs the loop ends up here again, and goes on below.
    guard !isProcessing else { return }
    isProcessing = true
    defer { isProcessing = false }
    while mayProceed, let result = parser.next(&input) {
      switch result {
      case .success(let request): execute(request)
      case .failure(let error): reply(.failure(ControlError(error.description)), to: nil)
      }
    }
    if input.isEmpty { input = [] }
    channel.wantsInput = mayProceed
  }

  private var mayProceed: Bool {
    executing == nil && !channel.isClosed && channel.outputCount <= Self.unreadBytesMax
  }

  private func execute(_ request: JSONValue) {
    guard let object = request.members else {
      return reply(.failure(ControlError("QMP input must be a JSON object")), to: nil)
    }
    let identifier = object["id"]
    commandCount += 1
    let number = commandCount
    executing = number
    do throws(ControlError) {
      let (command, arguments) = try commands.prepare(object, isNegotiated: isNegotiated)
      try command.run(commands, arguments) { [weak self] result in
        self?.finished(number, command.name, result, identifier)
      }
    } catch {
      finished(number, "", .failure(error), identifier)
    }
  }

  private func finished(
    _ number: Int, _ name: String, _ result: Result<JSONValue, ControlError>, _ identifier: JSONValue?
  ) {
    // Of a command that answers twice, or late, the first answer counts.
    guard executing == number else { return }
    executing = nil
    if case .success = result, name == MonitorCommands.negotiation { isNegotiated = true }
    reply(result, to: identifier)
    process()
  }

  private func reply(_ result: Result<JSONValue, ControlError>, to identifier: JSONValue?) {
    var reply = JSONObject()
    switch result {
    case .success(let value): reply["return"] = value
    case .failure(let error):
      reply["error"] = ["class": .string(error.kind.rawValue), "desc": .string(error.description)]
    }
    reply["id"] = identifier
    send(.object(reply))
  }
}
