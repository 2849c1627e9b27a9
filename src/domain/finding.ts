/** One remark of an inspection. It never quotes rendered content: file, line and key names only. */
export interface Finding {
  severity: 'error' | 'warning';
  /** A stable word for programs, such as `unhandled_part`. */
  code: string;
  /** Which part: a file name, or `bundle@revision/file` where several bundles are looked at. */
  part?: string;
  /** 1-based. */
  line?: number;
  /** 1-based. */
  column?: number;
  /** A sentence that says what to do. */
  message: string;
}
