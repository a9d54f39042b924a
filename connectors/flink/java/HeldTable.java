// A hash table of what an operator holds, in chains, so that a look-up makes no object: who asks walks the chain of a hash.
package headwater;

final class HeldTable {
    private static final int FIRST_PLACES = 1024;

    private Held[] places = new Held[FIRST_PLACES];
    private int count;

    int count() {
        return this.count;
    }

    /** The first one of those that may have this hash; `next` leads to the others. Null: none has it. */
    Held first(int hash) {
        return this.places[hash & this.places.length - 1];
    }

    void add(Held one) {
        put(this.places, one);
        this.count++;
        if (this.count > this.places.length) {
            grow();
        }
    }

    /** All of them; the table is empty then. */
    Held[] taken() {
        Held[] taken = new Held[this.count];
        int n = 0;
        for (int i = 0; i < this.places.length; i++) {
            for (Held one = this.places[i]; one != null; one = one.next) {
                taken[n++] = one;
            }
            this.places[i] = null;
        }
        this.count = 0;
        return taken;
    }

    private static void put(Held[] places, Held one) {
        int at = one.hash & places.length - 1;
        one.next = places[at];
        places[at] = one;
    }

    private void grow() {
        Held[] larger = new Held[this.places.length * 4];
        for (int i = 0; i < this.places.length; i++) {
            Held one = this.places[i];
            while (one != null) {
                Held next = one.next;
                put(larger, one);
                one = next;
            }
        }
        this.places = larger;
    }
}

/** One of a table. */
abstract class Held {
    final int hash;
    Held next;

    Held(int hash) {
        this.hash = hash;
    }
}
