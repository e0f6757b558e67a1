// SPDX-License-Identifier: Apache-2.0

/// Finds places for labels at which they cover nothing else.
struct LabelPlacer {
  /// Where no further label may lie: labels that are placed, and marks they must not hide.
  private var taken: [Rect] = []
  /// The lines from labels to what they name. They may cover each other, but no label.
  private var leaders: [Rect] = []
  /// What labels cross only if there is no other place: arrows, which can be followed behind a word.
  private var lines: [(start: Point, end: Point)] = []

  /// A place for a label, and the line from there to what it names.
  struct Candidate {
    var label: Rect
    /// May run along an arrow, but not through another label.
    var leader: Rect?
  }

  mutating func take(_ rect: Rect) { taken.append(rect) }

  /// Keeps labels off the lines between these points where that is possible.
  mutating func avoid(_ points: [Point]) {
    for (start, end) in zip(points, points.dropFirst()) { lines.append((start, end)) }
  }

  /// Takes the candidate that is free and crosses the least of all lines, the first of equal ones. Its index, and whether
  /// it crosses any; nil where none is free.
  mutating func place(_ candidates: [Candidate]) -> (index: Int, crosses: Bool)? {
    var best: (index: Int, crossing: Double)?
    for (index, candidate) in candidates.enumerated() where isFree(candidate) {
      let crossing = crossing(candidate.label)
      if crossing < best?.crossing ?? .infinity { best = (index, crossing) }
      if crossing == 0 { break }
    }
    guard let best else { return nil }
    take(candidates[best.index].label)
    if let leader = candidates[best.index].leader { leaders.append(leader) }
    return (best.index, best.crossing > 0)
  }

  /// The same for labels that no line leads to; the index alone.
  mutating func place(_ labels: [Rect]) -> Int? { place(labels.map { Candidate(label: $0) })?.index }

  private func isFree(_ candidate: Candidate) -> Bool {
    !leaders.contains { $0.intersects(candidate.label) }
      && !taken.contains { $0.intersects(candidate.label) || candidate.leader.map($0.intersects) ?? false }
  }

  /// How many pixels of lines lie within a rectangle.
  private func crossing(_ rect: Rect) -> Double {
    lines.reduce(0) { sum, line in
      guard let part = rect.part(ofLineFrom: line.start, to: line.end) else { return sum }
      let length = max(abs(line.end.x - line.start.x), abs(line.end.y - line.start.y))
      return sum + max((part.upperBound - part.lowerBound) * length, 1)
    }
  }

  /// Moves rectangles of these heights up or down until none overlaps, each as near as possible to the middle it wants,
  /// all within `range` where they fit it. Returns the upper edges in the order of the input.
  static func spread(middles: [Double], heights: [Double], within range: ClosedRange<Double>) -> [Double] {
    let order = middles.indices.sorted { (middles[$0], $0) < (middles[$1], $1) }
    // Neighbours that overlap become one block, whose middle is the mean of what its members want.
    struct Block {
      var members: [Int]
      var height: Double
      var top: Double
    }
    func block(_ members: [Int]) -> Block {
      let height = members.reduce(0) { $0 + heights[$1] }
      var above = 0.0
      var wanted = 0.0
      for member in members {
        wanted += middles[member] - heights[member] / 2 - above
        above += heights[member]
      }
      let top = min(wanted / Double(members.count), range.upperBound - height)
      return Block(members: members, height: height, top: max(top, range.lowerBound))
    }
    var blocks: [Block] = []
    for index in order {
      var last = block([index])
      while let previous = blocks.last, previous.top + previous.height > last.top {
        blocks.removeLast()
        last = block(previous.members + last.members)
      }
      blocks.append(last)
    }
    var tops = [Double](repeating: 0, count: middles.count)
    for block in blocks {
      var top = block.top
      for member in block.members {
        tops[member] = top
        top += heights[member]
      }
    }
    return tops
  }
}
