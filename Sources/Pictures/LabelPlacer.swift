// SPDX-License-Identifier: Apache-2.0

/// Finds places for labels at which they cover nothing else.
struct LabelPlacer {
  /// Where no further label may lie: labels that are placed, and marks they must not hide.
  private(set) var taken: [Rect] = []
  /// Where labels lie only if there is no other place: arrows, which can be followed behind a word.
  private var avoided: [Rect] = []

  mutating func take(_ rect: Rect) { taken.append(rect) }

  /// Keeps labels off a line where that is possible.
  mutating func avoid(_ line: [Point]) {
    /// Pixels between the little squares that stand for the line.
    let pace = 4.0
    for (start, end) in zip(line, line.dropFirst()) {
      let steps = max(1, Int(max(abs(end.x - start.x), abs(end.y - start.y)) / pace))
      for step in 0...steps {
        let part = Double(step) / Double(steps)
        let x = start.x + (end.x - start.x) * part
        let y = start.y + (end.y - start.y) * part
        avoided.append(Rect(x: x - pace / 2, y: y - pace / 2, width: pace, height: pace))
      }
    }
  }

  func isFree(_ rects: [Rect]) -> Bool { !rects.contains { rect in taken.contains { $0.intersects(rect) } } }

  private func isClear(_ rects: [Rect]) -> Bool {
    isFree(rects) && !rects.contains { rect in avoided.contains { $0.intersects(rect) } }
  }

  /// Takes the first candidate whose rectangles are free and off every line, else the first that is free; its index.
  mutating func place(_ candidates: [[Rect]]) -> Int? {
    guard let index = candidates.firstIndex(where: isClear) ?? candidates.firstIndex(where: isFree) else { return nil }
    taken += candidates[index]
    return index
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
