// Times in state, in four bytes: seconds since 1970, rounded up, as an unsigned number (until 2106); 0 for none.
package headwater;

final class Seconds {
    private Seconds() {}

    static int of(long ms) {
        return ms == 0 ? 0 : (int) Math.max(1L, Math.min(0xffffffffL, (ms + 999) / 1000));
    }

    static long ms(int seconds) {
        return (seconds & 0xffffffffL) * 1000;
    }
}
