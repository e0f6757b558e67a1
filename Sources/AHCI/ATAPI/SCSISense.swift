// SPDX-License-Identifier: Apache-2.0

/// Why a packet command failed: sense key, additional sense code and its qualifier (SPC-3 §4.5).
struct SCSISense: Equatable {
  var key: UInt8
  var code: UInt8
  var qualifier: UInt8

  /// Nothing to tell.
  static let none = SCSISense(key: 0x0, code: 0x00, qualifier: 0x00)

  // MARK: Not ready

  /// MEDIUM NOT PRESENT - TRAY CLOSED.
  static let noMediumTrayClosed = SCSISense(key: 0x2, code: 0x3a, qualifier: 0x01)
  /// MEDIUM NOT PRESENT - TRAY OPEN.
  static let noMediumTrayOpen = SCSISense(key: 0x2, code: 0x3a, qualifier: 0x02)
  /// INCOMPATIBLE MEDIUM INSTALLED: a disc without a single block.
  static let incompatibleMedium = SCSISense(key: 0x2, code: 0x30, qualifier: 0x00)

  // MARK: Medium and hardware errors

  /// UNRECOVERED READ ERROR.
  static let readError = SCSISense(key: 0x3, code: 0x11, qualifier: 0x00)
  /// INTERNAL TARGET FAILURE: the host has no memory.
  static let internalFailure = SCSISense(key: 0x4, code: 0x44, qualifier: 0x00)

  // MARK: Illegal requests

  /// PARAMETER LIST LENGTH ERROR.
  static let parameterListLength = SCSISense(key: 0x5, code: 0x1a, qualifier: 0x00)
  /// INVALID COMMAND OPERATION CODE.
  static let invalidOpcode = SCSISense(key: 0x5, code: 0x20, qualifier: 0x00)
  /// LOGICAL BLOCK ADDRESS OUT OF RANGE.
  static let addressOutOfRange = SCSISense(key: 0x5, code: 0x21, qualifier: 0x00)
  /// INVALID FIELD IN CDB.
  static let invalidField = SCSISense(key: 0x5, code: 0x24, qualifier: 0x00)
  /// INVALID FIELD IN PARAMETER LIST.
  static let invalidParameter = SCSISense(key: 0x5, code: 0x26, qualifier: 0x00)
  /// CANNOT READ MEDIUM - INCOMPATIBLE FORMAT: asked of a CD what only a DVD has.
  static let incompatibleFormat = SCSISense(key: 0x5, code: 0x30, qualifier: 0x02)
  /// SAVING PARAMETERS NOT SUPPORTED.
  static let savingNotSupported = SCSISense(key: 0x5, code: 0x39, qualifier: 0x00)
  /// MEDIUM REMOVAL PREVENTED.
  static let removalPrevented = SCSISense(key: 0x5, code: 0x53, qualifier: 0x02)
  /// ILLEGAL MODE FOR THIS TRACK: sectors of another kind than the track has.
  static let illegalTrackMode = SCSISense(key: 0x5, code: 0x64, qualifier: 0x00)

  // MARK: Unit attention

  /// NOT READY TO READY CHANGE, MEDIUM MAY HAVE CHANGED.
  static let mediumChanged = SCSISense(key: 0x6, code: 0x28, qualifier: 0x00)
}
